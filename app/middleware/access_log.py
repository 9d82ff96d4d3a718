"""One line and one count for each request, when its answer ends; a stream's line says how the stream ended."""

from time import monotonic

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.observability.figures import OTHER, figures
from app.observability.metrics import REQUEST_SECONDS, REQUESTS
from app.observability.noise import Noise
from app.scope import begin, note, sent_headers

log = structlog.get_logger("access")

METHODS = frozenset({"GET", "POST", "DELETE", "OPTIONS", "HEAD"})
_JSON = (b"content-type", b"application/json")
CLIENT_LEFT = 499  # NGINX's word for it: no answer had begun
# Probes come several times a second from every side and say nothing while they succeed.
QUIET_PATHS = frozenset({"/livez", "/readyz"})


class AccessLogMiddleware:
    """Inner layers leave what they know of the request in `app.scope.note`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._noise = Noise()
        # Bound once: the module's logger is a proxy, in which each call finds nothing at first.
        self._access = log.bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = begin(scope)
        status = 0

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if _JSON in message.get("headers", ()):  # of a stream it would say when it began
                    spent = f"{monotonic() - started:.4f}".encode()
                    message["headers"] = [*message["headers"], (b"x-process-time", spent)]
            await send(message)

        try:
            await self._app(scope, receive, send_and_see)
        finally:
            seconds = monotonic() - started
            _count(scope, status, seconds)
            if scope["path"] not in QUIET_PATHS or status >= 400:
                self._log(scope, status, seconds)

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        fields = note(scope)
        begun = "stream_id" in fields and "resumed" not in fields
        failed = status >= 500 and status != 503
        if not (begun or failed):
            unlogged = self._noise.admits((_route(scope), status, fields.get("outcome")))
            if unlogged is None:
                return
            if unlogged:
                fields["unlogged"] = unlogged
        self._access.info(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            client=_client(scope),
            duration_ms=round(seconds * 1000, 1),
            **fields,
        )


def _route(scope: Scope) -> str:
    # Set by the router, in this very scope; the path itself may have anything in it.
    return str(getattr(scope.get("route"), "path", OTHER))


def _count(scope: Scope, status: int, seconds: float) -> None:
    route = _route(scope)
    method = scope["method"] if scope["method"] in METHODS else OTHER
    figures.add(REQUESTS, 1, route, method, str(status or CLIENT_LEFT))
    if "stream_id" not in note(scope):
        # A stream's time is that of its tokens: in here it would burn an objective for latency.
        figures.observe(REQUEST_SECONDS, seconds, route)


def _client(scope: Scope) -> str | None:
    """The peer; behind a Unix socket, which has none, the address that NGINX saw."""
    if scope.get("client") and scope["client"][0]:
        return str(scope["client"][0])
    address = sent_headers(scope).get(b"x-real-ip")
    return None if address is None else address.decode("latin-1")
