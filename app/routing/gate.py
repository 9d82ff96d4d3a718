"""How many requests an upstream is given at a time, and who waits for a place: so many, and for so long."""

import asyncio

from app.errors import UpstreamUnavailable

RETRY_AFTER_SECONDS = 1


class Gate:
    """Who is let in has to `leave`.

    Args:
        places_max: requests at a time.
        queue_max: requests that wait.
        queue_seconds: how long each of them waits.
    """

    def __init__(self, places_max: int, queue_max: int, queue_seconds: float) -> None:
        self._places = asyncio.Semaphore(places_max)
        self._queue_max = queue_max
        self._queue_seconds = queue_seconds
        self.waiting = 0
        self.taken = 0
        """Requests that run."""

    @property
    def free(self) -> bool:
        """Whether nobody would have to wait."""
        return not self._places.locked()

    async def enter(self) -> None:
        """Wait for a place.

        Raises:
            UpstreamUnavailable: there was none in time, or too many wait already.
        """
        if self.free:
            await self._places.acquire()
            self.taken += 1
            return
        if self.waiting >= self._queue_max:
            raise _full()
        self.waiting += 1
        try:
            async with asyncio.timeout(self._queue_seconds):
                await self._places.acquire()
            self.taken += 1
        except TimeoutError:
            raise _full() from None
        finally:
            self.waiting -= 1

    def leave(self) -> None:
        """Give the place back."""
        self.taken -= 1
        self._places.release()


def _full() -> UpstreamUnavailable:
    return UpstreamUnavailable("The model is at its capacity.", retry_after_seconds=RETRY_AFTER_SECONDS)
