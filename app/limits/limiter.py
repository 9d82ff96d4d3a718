"""Takes from accounts, whatever becomes of the store: where it does not answer in time, this process counts alone.

Nothing that a stream waits for is in here but `take`, once, before it begins, and `take_more`, for a moment, each some
thousand tokens. What is given back and what is renewed goes out behind its back.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from time import monotonic

import structlog

from app.errors import LogUnavailable
from app.limits.account import NO_SLOT, Ask, Return, Taken
from app.limits.counters import Counters
from app.limits.memory_counters import MemoryCounters

log = structlog.get_logger(__name__)

# A command of 0.15 s and a little for a busy machine. A request waits no longer.
TAKE_SECONDS_MAX = 0.18
# A reader sees no pause of this length.
MORE_SECONDS_MAX = 0.04
# After a failure the store is left alone for this long, so that only a few requests wait for it in vain. No longer, as
# for want of a processor a worker takes it for away that is not.
AWAY_SECONDS = 0.4
# A stream's end is on its way to the store when its reader, who has just seen it, asks for the next one.
SECOND_LOOK_SECONDS = 0.05
RETURNS_MAX = 10_000
TIDY_SECONDS = 30.0

Held = Callable[[], Sequence[tuple[str, str]]]


class Limiter:
    """One for each worker; `run` is its task.

    Args:
        beat_seconds: between two renewals of what is held. A slot lapses after two: a killed worker's are free then.
    """

    def __init__(self, store: Counters, beat_seconds: float) -> None:
        self.fallbacks = 0
        """Requests that were counted by this process alone, for want of the store."""
        self._store = store
        self._local = MemoryCounters()
        self._beat_seconds = beat_seconds
        self._away_until = 0.0
        self._returns: list[Return] = []
        self._flushing: asyncio.Task[None] | None = None

    @property
    def slot_ms(self) -> int:
        return int(2 * self._beat_seconds * 1000)

    @property
    def away(self) -> bool:
        """Whether this process counts alone just now."""
        return monotonic() < self._away_until

    def leave_alone(self) -> None:
        """Somebody else has waited for the store in vain."""
        self._away_until = monotonic() + AWAY_SECONDS

    async def take(self, ask: Ask) -> tuple[Taken, bool]:
        """All that a request takes, or nothing; and whether only this process knows of it."""
        give_up = monotonic() + TAKE_SECONDS_MAX
        taken, alone = await self._take(ask, TAKE_SECONDS_MAX)
        if taken.refused == NO_SLOT and (left := give_up - monotonic()) > 2 * SECOND_LOOK_SECONDS:
            await asyncio.sleep(SECOND_LOOK_SECONDS)
            taken, alone = await self._take(ask, left - SECOND_LOOK_SECONDS)
        return taken, alone

    async def take_more(self, ask: Ask) -> tuple[Taken, bool]:
        """As `take`, for a stream that runs and must not wait."""
        return await self._take(ask, MORE_SECONDS_MAX)

    async def _take(self, ask: Ask, seconds_max: float) -> tuple[Taken, bool]:
        if not self.away:
            try:
                async with asyncio.timeout(seconds_max):
                    return await self._store.take(ask), False
            except (LogUnavailable, TimeoutError) as error:
                self._lost(error)
        self.fallbacks += not ask.look
        return self._local.take_now(ask), True

    def give_back(self, returns: Sequence[Return], alone: bool = False) -> None:
        """Correct what was taken, and free slots, soon.

        Args:
            alone: as `take` said. What the store does not know of, it cannot get back; but a slot may have been renewed
                there since.
        """
        self._local.give_back_now(returns)
        self._returns += _slots_only(returns) if alone else returns
        del self._returns[:-RETURNS_MAX]
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush(), name="limits-flush")

    async def run(self, held: Held) -> None:
        """Renew what is held, and have the store forget, for ever."""
        tidied = monotonic()
        while True:
            try:
                await self._renew(held())
                if monotonic() - tidied > TIDY_SECONDS:
                    tidied = monotonic()
                    await self._local.tidy()
                    await self._store.tidy()
            except LogUnavailable as error:
                self._lost(error)
            except Exception:
                log.exception("limits duty failed")
            # Jitter, so that the workers of a machine do not all come at the same moment; never later than the beat.
            await asyncio.sleep(self._beat_seconds * random.uniform(0.8, 1.0))  # noqa: S311

    async def _renew(self, slots: Sequence[tuple[str, str]]) -> None:
        # Here too, so that what runs already counts where the store goes away.
        self._local.renew_now(slots, self.slot_ms)
        await self._store.renew(slots, self.slot_ms)
        await self._flush()
        self._away_until = 0.0

    async def _flush(self) -> None:
        while self._returns:
            batch, self._returns = self._returns, []
            try:
                await self._store.give_back(batch)
            except LogUnavailable as error:
                # It may have been done: an amount must not be given back twice. A slot can be.
                self._returns = _slots_only(batch) + self._returns
                self._lost(error)
                return

    def _lost(self, error: Exception) -> None:
        if not self.away:
            detail = error.detail if isinstance(error, LogUnavailable) else "no answer in time"
            log.warning("limits store unavailable, counting alone", detail=detail or str(error))
        self.leave_alone()

    async def aclose(self) -> None:
        """Give back what is left, and close the store."""
        try:
            async with asyncio.timeout(TAKE_SECONDS_MAX):
                await self._flush()
        except TimeoutError:
            pass  # what was held lapses by itself
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.gather(self._flushing, return_exceptions=True)
        await self._store.aclose()


def _slots_only(returns: Sequence[Return]) -> list[Return]:
    return [Return(back.key, "", 0, 0, 0, back.slot) for back in returns if back.slot]
