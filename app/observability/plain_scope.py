"""Shows the tracing around the app a request that may be told: without its query, and with the host that was asked.

Prompts, tickets and keys are in a query, and bytes that are no text, on which the instrumentation fails. And it takes
the path of the worker's Unix socket for a host.
"""

import re
from types import MethodType

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

_KEPT = "sluice.query_string"
_HOST = re.compile(rb"([0-9A-Za-z.-]{1,253}|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?")


class _Show:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "query_string" in scope:
            scope = {**scope, _KEPT: scope["query_string"], "query_string": b"", "server": _server(scope)}
        await self._app(scope, receive, send)


def _server(scope: Scope) -> tuple[str, int]:
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    found = _HOST.fullmatch(host)
    return (found[1].decode(), int(found[2] or 80)) if found else ("unknown", 80)


class Restore:
    """Inside the tracing: gives the query back to those who are to read it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _KEPT in scope:
            scope = {**scope, "query_string": scope[_KEPT]}
        await self._app(scope, receive, send)


def show_plainly(app: FastAPI) -> None:
    """Put the two around the app's middleware, the tracing between them. Before the first request."""
    app.add_middleware(Restore)
    build = app.build_middleware_stack

    def build_shown(_: FastAPI) -> ASGIApp:
        return _Show(build())

    app.build_middleware_stack = MethodType(build_shown, app)  # type: ignore[method-assign]
