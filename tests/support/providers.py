"""Providers whose every step a test decides, and that say what became of them."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from time import monotonic

from app.events import Done, Token, Usage
from app.providers.base import GenerationRequest, Pour

Step = Token | Done | float | BaseException | asyncio.Event | Callable[[], object]

DONE = Done("stop", Usage(3, 5))
FOREVER = 3600.0
REQUEST = GenerationRequest(model="m", messages=[{"role": "user", "content": "Say it."}])


def tokens(count: int) -> list[Token]:
    """`count` content tokens: t1, t2, …"""
    return [Token(f"t{number} ") for number in range(1, count + 1)]


class Steps:
    """Yields events, sleeps for numbers, waits for `asyncio.Event`s, calls functions and raises exceptions, in turn.

    Args:
        closing_seconds: how long its own cleaning up takes.
    """

    def __init__(self, *steps: Step, closing_seconds: float = 0.0) -> None:
        self.started = 0
        self.closed = 0
        """Generations whose `finally` ran to its end."""
        self.closed_at = 0.0
        self._steps = steps
        self._closing_seconds = closing_seconds

    async def generate(
        self, request: GenerationRequest, pour: Pour | None = None
    ) -> AsyncGenerator[Token | Done, None]:
        self.started += 1
        try:
            for step in self._steps:
                if isinstance(step, Token | Done):
                    yield step
                elif isinstance(step, BaseException):
                    raise step
                else:
                    await self._pass(step)
        finally:
            if self._closing_seconds:
                await asyncio.sleep(self._closing_seconds)
            self.closed += 1
            self.closed_at = monotonic()

    async def _pass(self, step: float | asyncio.Event | Callable[[], object]) -> None:
        if isinstance(step, asyncio.Event):
            await step.wait()
        elif callable(step):
            step()
        else:
            await asyncio.sleep(step)

    async def aclose(self) -> None:
        """Nothing is held."""
