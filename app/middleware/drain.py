"""Turns new work away before anything is done for it, where this whole machine is about to stop.

What it lets through and still begins a stream, a GET with a prompt, is refused where streams begin (`Opener.open`).
"""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

# These make a POST one that comes back for a stream, or may.
RESUMING = frozenset({b"last-event-id", b"idempotency-key", b"sluice-resume"})
# What readers of streams that still run may need.
OTHER_POSTS = ("/api/v1/auth/", "/api/v2/auth/", "/api/v1/tickets", "/api/v2/tickets")


class DrainMiddleware:
    """Lets readers come back, and nobody begin.

    Args:
        draining: whether the machine is about to stop.
        answer: refuses, in the shape of the surface that was asked.
    """

    def __init__(self, app: ASGIApp, draining: Callable[[], bool], answer: Callable[[Scope], ASGIApp]) -> None:
        self._app = app
        self._draining = draining
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._draining() and _begins_something(scope):
            await self._answer(scope)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _begins_something(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "POST":
        return False
    path = scope["path"]
    if path.startswith(OTHER_POSTS) or path.endswith("/cancel"):
        return False
    return not any(name in RESUMING for name, _ in scope["headers"])
