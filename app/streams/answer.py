"""A whole answer, put together for those who do not stream."""

from typing import Any

from app.events import Done, Token
from app.streams.tool_calls import tool_calls


class Answer:
    """What a stream said, once it is complete.

    Args:
        tokens: all of them, of every kind, in order.
    """

    def __init__(self, stream_id: str, tokens: list[Token], done: Done) -> None:
        self.stream_id = stream_id
        self.done = done
        self._tokens = tokens

    @property
    def text(self) -> str:
        return self._joined("content")

    @property
    def thoughts(self) -> str:
        return self._joined("thought")

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        return tool_calls(self._tokens)

    def _joined(self, kind: str) -> str:
        return "".join(token.text for token in self._tokens if token.kind == kind)
