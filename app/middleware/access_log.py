"""One line for each request, written when its answer ends; a stream's line says how the stream ended."""

from time import monotonic

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.scope import note

log = structlog.get_logger("access")

# Probes come several times a second from every side and say nothing while they succeed.
QUIET_PATHS = frozenset({"/livez", "/readyz"})


class AccessLogMiddleware:
    """Inner layers leave what they know of the request in `app.scope.note`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = monotonic()
        status = 0

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_see)
        finally:
            if scope["path"] not in QUIET_PATHS or status >= 400:
                log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    client=_client(scope),
                    duration_ms=round((monotonic() - started) * 1000, 1),
                    **note(scope),
                )


def _client(scope: Scope) -> str | None:
    """The peer; behind a Unix socket, which has none, the address that NGINX saw."""
    if scope.get("client") and scope["client"][0]:
        return str(scope["client"][0])
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-real-ip"), None)
