"""A whole answer, put together for those who do not stream."""

from typing import Any

from app.events import Done, Token
from app.streams.log import StreamRecord
from app.streams.tool_calls import tool_calls


class Answer:
    """What a stream said, once it is complete.

    Args:
        tokens: all of them, of every kind, in order.
    """

    def __init__(self, record: StreamRecord, tokens: list[Token], done: Done) -> None:
        self.record = record
        self.done = done
        self.tokens = tokens

    @property
    def stream_id(self) -> str:
        return self.record.stream_id

    @property
    def text(self) -> str:
        return self._joined("content")

    @property
    def thoughts(self) -> str:
        return self._joined("thought")

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        return tool_calls(self.tokens)

    def _joined(self, kind: str) -> str:
        return "".join(token.text for token in self.tokens if token.kind == kind)
