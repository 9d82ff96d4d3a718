"""Names every request, by the caller's `X-Request-ID` where it is harmless, and adds what all answers carry."""

import re
import secrets
from collections.abc import Mapping

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.observability import tracing
from app.scope import own_headers, sent_headers, set_request_id

# What goes into logs, headers and JSON verbatim must not be able to forge a field or end a line.
_HARMLESS = re.compile(rb"[A-Za-z0-9._-]{1,64}")


# What has an answer's headers.
_BEGINNINGS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class RequestIdMiddleware:
    """Outermost, so that every line and answer of a request carries its id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = sent_headers(scope)
        sent = headers.get(b"x-request-id", b"")
        identity = sent.decode() if _HARMLESS.fullmatch(sent) else secrets.token_hex(16)
        set_request_id(scope, identity)
        # Cleared first: Uvicorn runs the requests of a kept-alive connection in one context.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=identity)
        if trace := _trace_id(headers):
            structlog.contextvars.bind_contextvars(trace_id=trace)
        named = [(b"x-request-id", identity.encode())]
        if scope["path"].startswith("/v1/messages"):
            named.append((b"request-id", identity.encode()))  # where Anthropic's SDK looks for it
        # Added here and not where they are found out: the answer may be anybody's, a route's, an error's, a stream's.
        more = own_headers(scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] in _BEGINNINGS:
                message["headers"] = [*message.get("headers", ()), *named, *more]
            await send(message)

        await self._app(scope, receive, send_with_id)


def _trace_id(headers: Mapping[bytes, bytes]) -> str | None:
    """Of our own span, else of the caller's."""
    found = tracing.current_headers()
    if not found and b"traceparent" in headers:
        found = {"traceparent": headers[b"traceparent"].decode("latin-1")}
    return tracing.trace_of(found) if found else None
