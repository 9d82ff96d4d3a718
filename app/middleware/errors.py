"""The last net: an exception that nobody expected becomes a clean 500, or, once bytes were sent, a visible cut."""

from collections.abc import Callable

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger(__name__)


class ErrorsMiddleware:
    """Logs the traceback under the request's id; the caller gets the id and no more.

    Args:
        answer: makes the answer to a defect, in the shape of the surface that was asked.
    """

    def __init__(self, app: ASGIApp, answer: Callable[[Scope], ASGIApp]) -> None:
        self._app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_and_see(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_and_see)
        except Exception:
            log.exception("request failed", path=scope["path"])
            if started:
                # Uvicorn closes the connection without the last chunk, which every client sees as incomplete.
                raise
            await self._answer(scope)(scope, receive, send)
