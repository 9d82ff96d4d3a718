"""What a worker does for its streams at intervals: renews its lease, hears of cancellations, and sees after orphans."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import structlog

from app.errors import LogUnavailable
from app.streams.follower import Follower
from app.streams.log import StreamRecord
from app.streams.registry import Streams

log = structlog.get_logger(__name__)

Duty = Callable[[], Awaitable[None]]

REAP_SECONDS = 2.0
BEATS_PER_LEASE = 0.3


class Keeper:
    """One for each worker; `run` is its task.

    Args:
        lease_seconds: it is renewed often enough for two renewals to fail.
    """

    def __init__(self, streams: Streams, follower: Follower, lease_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._streams = streams
        self._backend = streams.backend
        self._follower = follower

    async def start(self, dead: Sequence[str]) -> None:
        """Have a lease before the first stream, and let the streams of dead workers be taken over at once."""
        await self._backend.beat(self._streams.owner)
        for owner in dead:
            await self._backend.expire(owner)

    async def run(self) -> None:
        """Beat and reap for ever."""
        await asyncio.gather(
            self._every(self._lease_seconds * BEATS_PER_LEASE, self.beat), self._every(REAP_SECONDS, self.reap)
        )

    async def _every(self, seconds: float, duty: Duty) -> None:
        while True:
            try:
                await duty()
            except LogUnavailable as error:
                self._follower.log_was_away()
                log.warning("log unavailable", detail=error.detail or error.message)
            except Exception:
                log.exception("duty failed")
            # Jitter, so that the workers of a machine do not all look for orphans at the same moment.
            await asyncio.sleep(seconds * random.uniform(0.8, 1.0))  # noqa: S311

    async def beat(self) -> None:
        """Keep the lease, hear who is to be cancelled, and tell owners elsewhere that their streams are read."""
        if self._streams.released:
            return
        await self._backend.beat(self._streams.owner)
        await self._follower.give_back()
        for stream_id in await self._backend.cancel_requests(self._streams.owner):
            if live := self._streams.live.get(stream_id):
                self._streams.cancel_here(live)
        read = [live.stream_id for live in self._streams.live.values() if live.readers and live.generation is None]
        if read:
            await self._backend.touch_readers(read)

    async def reap(self) -> None:
        """Take over what must be finished though nobody reads it; end what nobody came back for."""
        if self._streams.draining:
            return
        for stream_id in await self._backend.orphans():
            found = await self._backend.describe(stream_id)
            if found is None or found[1].state != "running" or found[1].owner_alive:
                continue
            if found[0].on_disconnect == "finish":
                await self._follower.take_over(*found)
            elif found[1].orphaned_seconds > self._patience_seconds(found[0]):
                await self._follower.take_over(*found, go_on=False)
        await self._backend.reap()

    def _patience_seconds(self, record: StreamRecord) -> float:
        """How long a reader may still come and take the stream over."""
        return self._lease_seconds + (record.grace_seconds if record.on_disconnect == "grace" else 0)
