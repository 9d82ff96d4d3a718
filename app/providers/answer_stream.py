"""An upstream's answer, from its bytes to tokens: what is the same for every protocol that streams events.

No network, no waiting. Endings with and without a last event, errors and plain JSON under status 200, markup.
"""

from abc import ABC, abstractmethod
from typing import Any

from app.errors import UpstreamError, UpstreamInvalid, UpstreamTruncated
from app.events import Done, Token, Usage
from app.providers.rejection import Rejections
from app.providers.sse_parser import BOM, SSEEvent, SSEParser
from app.providers.words import words

JSON_BYTES_MAX = 4 * 1024 * 1024  # of an answer that is no stream
BLANK_BYTES_MAX = 1024  # before its first byte that says something


class AnswerStream(ABC):
    """The state of one answer. `feed` it with what arrives, call `end` when no more does.

    `complete` becomes true at the protocol's last event, or at an end that needs none; then `done` has ours.
    """

    def __init__(self, rejections: Rejections, content_type: str) -> None:
        self._rejections = rejections
        self._content_type = content_type
        self._parser = SSEParser()
        self._sniffed = False
        self._head = b""
        self._json: bytearray | None = None
        self._events_seen = False
        self._failure: UpstreamError | None = None
        self.content_tokens = 0
        self.finish_reason: str | None = None
        self.complete = False

    @abstractmethod
    def _event(self, event: SSEEvent, tokens: list[Token]) -> None:
        """Add what `event` says to `tokens`; note its end."""

    @abstractmethod
    def _whole(self, body: bytes, tokens: list[Token]) -> None:
        """The same for an answer that is one JSON object."""

    @abstractmethod
    def _usage(self) -> Usage:
        """As the upstream counted; zeros where it did not."""

    def plain(self, data: bytes) -> list[str]:
        """The tokens in these bytes, where they are whole events of content and nothing else. It is up to the caller to
        add them to `content_tokens`, or else to `feed` the bytes as if this had not been asked."""
        del data
        return []

    def feed(self, data: bytes) -> list[Token]:
        """The tokens in these bytes. A failure behind the last of them is raised by `check`, once they are delivered.

        Raises:
            UpstreamRejected: the upstream says that it failed.
            UpstreamInvalid: this is not its protocol.
        """
        if self._json is not None:
            return self._collect(data)
        return self._events(data) if self._sniffed else self._sniff(data)

    def check(self) -> None:
        """Raise the failure that came behind the tokens of the last `feed`."""
        if self._failure is not None:
            raise self._failure

    def end(self) -> list[Token]:
        """The bytes are over: complete, if the upstream had said that it is.

        Raises:
            UpstreamTruncated: it had not.
        """
        tokens: list[Token] = []
        if self._json is not None:
            self._whole(bytes(self._json).removeprefix(BOM), tokens)
        elif self.finish_reason is None:
            if not self._events_seen and "event-stream" not in self._content_type:
                raise invalid(f"no event in an answer of type {self._content_type[:100]!r}")
            raise UpstreamTruncated("The upstream ended before the answer was complete.")
        self.complete = True
        return tokens

    def done(self, messages: list[dict[str, Any]]) -> Done:
        """The terminal event; where the upstream counted no usage, it is counted here."""
        usage = self._usage()
        if not (usage.input_tokens or usage.output_tokens):
            usage = Usage(words(messages), self.content_tokens)
        return Done(self.finish_reason or "stop", usage)

    def _sniff(self, data: bytes) -> list[Token]:
        """Decides by the first byte that says something: content types lie, and no SSE field begins like these."""
        self._head += data
        start = self._head.removeprefix(BOM).lstrip()[:1]
        if not start and len(self._head) < BLANK_BYTES_MAX:
            return []
        data, self._head = self._head, b""
        if start == b"<":
            raise invalid(f"markup, of type {self._content_type[:100]!r}")
        if start == b"{":
            self._json = bytearray()
        self._sniffed = True
        return self.feed(data)

    def _collect(self, data: bytes) -> list[Token]:
        assert self._json is not None
        if len(self._json) + len(data) > JSON_BYTES_MAX:
            raise invalid(f"JSON over {JSON_BYTES_MAX} bytes")
        self._json += data
        return []

    def _events(self, data: bytes) -> list[Token]:
        tokens: list[Token] = []
        try:
            for event in self._parser.feed(data):
                self._event(event, tokens)
                if self.complete:
                    break
                self._events_seen = True
        except UpstreamError as error:
            if not tokens:
                raise
            self._failure = error
        return tokens


def invalid(detail: str) -> UpstreamInvalid:
    """The error of an answer that is not the protocol; what it was instead is for the log."""
    return UpstreamInvalid("The upstream sent what is not a valid answer.", detail=detail)


def text(data: bytes) -> str:
    """What was passed on as it came, as text.

    Raises:
        UpstreamInvalid: it is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise invalid(str(error)) from None
