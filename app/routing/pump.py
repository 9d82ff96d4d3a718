"""Runs a provider's generator in a task of its own, for when more than its next event is waited for."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

from app.events import Done, Token

# A provider that outruns its reader waits behind so many.
EVENTS_MAX = 64


class Pump:
    """The generator is consumed and closed by one task, as providers want it."""

    def __init__(self, events: AsyncGenerator[Token | Done, None]) -> None:
        self._source = events
        self._queue: deque[Token | Done] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._over = False
        self.error: BaseException | None = None
        self._task = asyncio.create_task(self._run(), name="pump")

    async def ready(self) -> None:
        """Wait for an event, or the end."""
        while not self.has_news:
            self._news.clear()
            await self._news.wait()

    @property
    def has_news(self) -> bool:
        """Whether there is an event, or an end."""
        return bool(self._queue) or self._over

    @property
    def failed(self) -> bool:
        """Whether it ended without a word."""
        return self.error is not None and not self._queue

    async def events(self) -> AsyncGenerator[Token | Done, None]:
        """What the generator says; closing this closes it."""
        try:
            while True:
                await self.ready()
                if not self._queue:
                    break
                event = self._queue.popleft()
                self._room.set()
                yield event
            if self.error is not None:
                raise self.error
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the generator."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            async with aclosing(self._source) as events:
                async for event in events:
                    self._queue.append(event)
                    self._news.set()
                    while len(self._queue) >= EVENTS_MAX:
                        self._room.clear()
                        await self._room.wait()
        except Exception as error:
            self.error = error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self.error = error  # the provider's own: it belongs to whoever reads
        finally:
            self._over = True
            self._news.set()
