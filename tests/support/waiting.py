"""A wait for what takes a question to know: `tests.support.asgi.until` is for what can be seen at once."""

import asyncio
from collections.abc import Awaitable, Callable

POLL_SECONDS = 0.02


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    """Ask again and again until it holds."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - what changes is elsewhere, where nobody sets an asyncio.Event
            await asyncio.sleep(POLL_SECONDS)
