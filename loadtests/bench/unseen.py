"""Takes from Sluice, in this process, all that operators see of it: what is left is what that costs less.

Called in Gunicorn's processes before the product is loaded (tests/support/inside), for one row of the table.
"""

import asyncio
from typing import Any


def remove() -> None:
    """No figures, no sampler, no line for a request or a stream; traces are off unless they are asked for."""
    from app.middleware.access_log import AccessLogMiddleware
    from app.observability.figures import Figures
    from app.sampler import Sampler
    from app.streams.committer import Committer
    from app.streams.pace import Pace

    def nothing(*_: Any) -> None:
        pass

    async def rest(*_: Any) -> None:
        await asyncio.Event().wait()

    async def straight(self: Any, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)

    replaced: list[tuple[type, str, Any]] = [
        (Figures, "add", nothing),
        (Figures, "observe", nothing),
        (Pace, "delivered", nothing),
        (Pace, "ended", nothing),
        (Committer, "_count", nothing),
        (Sampler, "run", rest),
        (Sampler, "write", nothing),
        (AccessLogMiddleware, "__call__", straight),
    ]
    for owner, name, stand_in in replaced:
        if not hasattr(owner, name):
            raise AttributeError(f"{owner.__name__}.{name} is gone: say here what took its place")
        setattr(owner, name, stand_in)
