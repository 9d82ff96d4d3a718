"""Who in this process waits for news of which stream."""

import asyncio
from collections.abc import Collection


class Waiters:
    """Futures by stream. Waking is a hint that there may be news: whoever wakes looks for itself."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    @property
    def stream_ids(self) -> Collection[str]:
        """The streams that somebody waits for."""
        return self._waiting.keys()

    async def wait(self, stream_id: str, seconds: float) -> None:
        """Until `wake`, at most for `seconds`."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        # A timer of our own: asyncio.timeout costs five times as much, and a stream waits at every token.
        timer = loop.call_later(seconds, _finish, woken)
        self._waiting.setdefault(stream_id, set()).add(woken)
        try:
            await woken
        finally:
            timer.cancel()
            self._forget(stream_id, woken)

    def wake(self, stream_id: str) -> None:
        """Let all who wait for this stream look again."""
        for woken in self._waiting.pop(stream_id, ()):
            _finish(woken)

    def wake_all(self) -> None:
        """Let everybody look again."""
        for stream_id in list(self._waiting):
            self.wake(stream_id)

    def _forget(self, stream_id: str, woken: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(stream_id)
        if waiting is not None:
            waiting.discard(woken)
            if not waiting:
                del self._waiting[stream_id]


class Bells:
    """As `Waiters`, for those who come back for more: what rang while nobody waited ends the next wait at once."""

    def __init__(self) -> None:
        self._waiters = Waiters()
        # Whether it rang, by the names that somebody ever waited for.
        self._rang: dict[str, bool] = {}

    async def wait(self, name: str, seconds: float) -> None:
        """Until `ring`, at most for `seconds`."""
        if not self._rang.setdefault(name, False):
            await self._waiters.wait(name, seconds)
        self._rang[name] = False

    def ring(self, name: str) -> None:
        """Let whoever waits for this, or comes to wait next, look."""
        if name in self._rang:
            self._rang[name] = True
            self._waiters.wake(name)

    def ring_all(self) -> None:
        """Let everybody look."""
        self._waiters.wake_all()


def _finish(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
