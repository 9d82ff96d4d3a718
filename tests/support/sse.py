"""A reader of server-sent events for tests, written from the WHATWG standard and sharing nothing with the app's own.

Strict where a browser forgives: bytes that are not UTF-8 raise. It also keeps what a browser throws away: comments.
"""

import codecs
import json
from typing import Any

import msgspec

BOM = "\ufeff"


class Frame(msgspec.Struct, frozen=True):
    """One event as it is dispatched. `id` is the last one seen on the stream, `retry` the last one set."""

    data: str
    event: str = "message"
    id: str = ""
    retry: int | None = None

    def json(self) -> Any:
        """The data, parsed."""
        return json.loads(self.data)


class SSEDecoder:
    """Feed it bytes as they come; `comments` and `frames` hold all so far."""

    def __init__(self) -> None:
        self.comments: list[str] = []
        self.frames: list[Frame] = []
        self._text = codecs.getincrementaldecoder("utf-8")("strict")
        self._at_start = True
        self._line: list[str] = []
        self._after_cr = False
        self._data: list[str] = []
        self._event = ""
        self._id = ""
        self._retry: int | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """The events that `data` completes."""
        before = len(self.frames)
        for character in self._text.decode(data):
            if self._at_start:
                self._at_start = False
                if character == BOM:
                    continue
            self._take(character)
        return self.frames[before:]

    @property
    def pending(self) -> str:
        """What is held of an event that its blank line has not ended; the standard drops it at the end."""
        return "\n".join([*self._data, "".join(self._line)])

    def _take(self, character: str) -> None:
        belongs_to_cr = character == "\n" and self._after_cr
        self._after_cr = character == "\r"
        if belongs_to_cr:
            return
        if character in "\r\n":
            line, self._line = "".join(self._line), []
            self._end_line(line)
        else:
            self._line.append(character)

    def _end_line(self, line: str) -> None:
        if not line:
            self._dispatch()
        elif line.startswith(":"):
            self.comments.append(line[1:])
        else:
            name, _, value = line.partition(":")
            self._field(name, value.removeprefix(" "))

    def _field(self, name: str, value: str) -> None:
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self._retry = int(value)

    def _dispatch(self) -> None:
        if self._data:
            self.frames.append(Frame("\n".join(self._data), self._event or "message", self._id, self._retry))
        self._data, self._event = [], ""


def decode(data: bytes) -> list[Frame]:
    """All events of a stream that is complete; what its end cuts off is an error here."""
    decoder = SSEDecoder()
    frames = decoder.feed(data)
    assert not decoder.pending, f"the stream ends within an event: {decoder.pending[:200]!r}"
    return frames
