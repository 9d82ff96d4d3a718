"""How late the event loop was at the worst while something went on."""

import asyncio
from types import TracebackType
from typing import Self

TICK_SECONDS = 0.005


class LoopLag:
    """`async with LoopLag() as lag: …`, then `lag.worst_seconds`."""

    async def __aenter__(self) -> Self:
        self.worst_seconds = 0.0
        self._due = 0.0
        self._loop = asyncio.get_running_loop()
        self._arm()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # One more turn, for what held the loop last has not been seen yet.
        await asyncio.sleep(2 * TICK_SECONDS)
        self._timer.cancel()

    def _arm(self) -> None:
        self._due = self._loop.time() + TICK_SECONDS
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self.worst_seconds = max(self.worst_seconds, self._loop.time() - self._due)
        self._arm()
