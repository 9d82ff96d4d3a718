"""What stands behind a middleware in its tests."""

from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send


class Answering:
    """Answers what it was told to, and knows how often it was asked.

    Args:
        headers: of the answer.
    """

    def __init__(self, text: str = "the app", status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.asked = 0
        self._answer = PlainTextResponse(text, status, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        await self._answer(scope, receive, send)


def refusing(_: Scope) -> Answering:
    """What a middleware answers with that refuses."""
    return Answering("refused", 400)
