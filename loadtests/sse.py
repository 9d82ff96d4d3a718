"""Server-sent events from bytes in any pieces, by the WHATWG standard. Shares nothing with the server's own parser.

A line is decoded when it is whole, so a character may be split anywhere. A lone CR ends a line at once: whether an LF
follows is only known with the next piece, and must not hold the event back.
"""

import re
from typing import NamedTuple

LINE_END = re.compile(rb"\r\n|\n|\r")
BOM = b"\xef\xbb\xbf"
# A line longer than this is no event of ours, and must not fill the memory.
LINE_BYTES_MAX = 1024 * 1024


class LineTooLong(ValueError):
    """The peer sends something that has no line ends."""


class Event(NamedTuple):
    """One event as it is dispatched; `id` is the last one that the stream has named, `named` whether this one did."""

    name: str
    data: str
    id: str
    retry_ms: int | None
    named: bool = False


class EventDecoder:
    """Feed it bytes as they come."""

    def __init__(self) -> None:
        self.comments = 0
        self._bytes = b""
        self._started = self._after_cr = self._named = False
        self._data: list[str] = []
        self._name = self._id = ""
        self._retry_ms: int | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes."""
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        self._bytes += data
        if not self._started and not self._begin():
            return []
        events = []
        begin = 0
        for end in LINE_END.finditer(self._bytes):
            if event := self._line(self._bytes[begin : end.start()]):
                events.append(event)
            begin = end.end()
            self._after_cr = end.group() == b"\r" and begin == len(self._bytes)
        self._bytes = self._bytes[begin:]
        if len(self._bytes) > LINE_BYTES_MAX:
            raise LineTooLong(f"a line of more than {LINE_BYTES_MAX} bytes")
        return events

    def _begin(self) -> bool:
        """Whether enough is there to tell a byte order mark from text; it is dropped."""
        if len(self._bytes) < len(BOM) and BOM.startswith(self._bytes):
            return False
        self._bytes = self._bytes.removeprefix(BOM)
        self._started = True
        return True

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        field, colon, value = line.partition(b":")
        if not field:
            self.comments += bool(colon)
            return None
        self._field(field, value.removeprefix(b" ").decode("utf-8", errors="replace"))
        return None

    def _field(self, field: bytes, value: str) -> None:
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value
        elif field == b"id" and "\0" not in value:
            self._id, self._named = value, True
        elif field == b"retry" and value.isascii() and value.isdigit():
            self._retry_ms = int(value)

    def _dispatch(self) -> Event | None:
        name, data, named = self._name or "message", self._data, self._named
        self._name, self._data, self._named = "", [], False
        return Event(name, "\n".join(data), self._id, self._retry_ms, named) if data else None
