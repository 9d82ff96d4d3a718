"""When a worker looks for garbage that refers to itself: while it has no stream, or when there may be much of it.

CPython looks whenever so many objects were made, and walks all that is alive: some 250 objects a stream. At 400 streams
that held every one of them for a tenth of a second, once in ten seconds. What an ordinary stream leaves is freed by the
counts of its references, without a walk.
"""

import asyncio
import gc
from collections.abc import Callable
from time import monotonic

import structlog

log = structlog.get_logger(__name__)

PERIOD_SECONDS = 1.0
# With no stream: not worth a walk below.
OBJECTS_MIN = 2_000
# With streams: twice what lives of each, and how much garbage is borne with beside it: some 30 MB, of small ones.
OBJECTS_PER_STREAM = 500
OBJECTS_MAX = 100_000
# So many times as long as one took, until the next: a hundredth of the time. But never for longer than that, in which
# garbage that makes walks long would grow from each to the next.
RESTS = 100
REST_SECONDS_MAX = 10.0


def settle() -> None:
    """What is loaded by now lives as long as the process: never walk it again; and look only when `Garbage` says so."""
    gc.collect()
    gc.freeze()
    gc.disable()


class Garbage:
    """One for each worker; `run` is its task.

    Args:
        streams: how many are live here.
    """

    def __init__(self, streams: Callable[[], int]) -> None:
        self._streams = streams
        self._rests_until = 0.0

    async def run(self) -> None:
        """Look when it is due, for ever."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            if self.is_due():
                self.collect()

    def is_due(self) -> bool:
        """Whether there are so many objects more than after the last look: garbage, or made by streams that run."""
        if monotonic() < self._rests_until:
            return False
        more, streams = gc.get_count()[0], self._streams()
        return more > (OBJECTS_MAX + OBJECTS_PER_STREAM * streams if streams else OBJECTS_MIN)

    def collect(self) -> None:
        """Look now. A line says so where streams had to wait for it."""
        streams, began = self._streams(), monotonic()
        gc.collect()
        took_seconds = monotonic() - began
        self._rests_until = monotonic() + min(RESTS * took_seconds, REST_SECONDS_MAX)
        if streams:
            log.info("streams waited for garbage", streams=streams, held_ms=round(1000 * took_seconds, 1))
