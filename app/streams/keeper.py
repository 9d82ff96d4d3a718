"""What a worker does for its streams at intervals: renews its lease, hears of cancellations, and sees after orphans."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import structlog

from app.errors import LogUnavailable
from app.streams.follower import Follower
from app.streams.log import StreamRecord
from app.streams.packing import Unreadable
from app.streams.registry import Streams

log = structlog.get_logger(__name__)

Duty = Callable[[], Awaitable[None]]

REAP_SECONDS = 2.0
BEATS_PER_LEASE = 0.3
# How long a worker's death goes unheard by the others of its Gunicorn: a look at a number in shared memory.
DEATH_SECONDS = 0.1
# Between two tries of a duty that failed.
RETRY_SECONDS = 0.5


class Keeper:
    """One for each worker; `run` is its task.

    Args:
        lease_seconds: it is renewed often enough for two renewals to fail.
        newly_dead: the names of workers that are known to have died since it was asked last, or ever.
    """

    def __init__(
        self, streams: Streams, follower: Follower, lease_seconds: float, newly_dead: Callable[[], Sequence[str]]
    ) -> None:
        self._lease_seconds = lease_seconds
        self._streams = streams
        self._backend = streams.backend
        self._follower = follower
        self._newly_dead = newly_dead
        # Their leases are not over yet, as far as is known here.
        self._dead: list[str] = []

    async def start(self) -> None:
        """Have a lease before the first stream, and let the streams of dead workers be taken over at once."""
        await self._backend.beat(self._streams.owner)
        await self.bury()

    async def run(self) -> None:
        """Do all duties for ever."""
        beat_seconds = self._lease_seconds * BEATS_PER_LEASE
        await asyncio.gather(
            self._every(beat_seconds, self.beat),
            self._every(REAP_SECONDS, self.reap),
            self._every(DEATH_SECONDS, self.bury),
            self._every(0.0, self.hear_cancels),
        )

    async def _every(self, seconds: float, duty: Duty) -> None:
        while True:
            try:
                await duty()
                pause = seconds
            except LogUnavailable as error:
                self._follower.log_was_away()
                log.warning("log unavailable", detail=error.detail or error.message)
                pause = max(seconds, RETRY_SECONDS)
            except Exception:
                log.exception("duty failed")
                pause = max(seconds, RETRY_SECONDS)
            # Jitter, so that the workers of a machine do not all look for orphans at the same moment.
            await asyncio.sleep(pause * random.uniform(0.8, 1.0))  # noqa: S311

    async def beat(self) -> None:
        """Keep the lease, and tell owners elsewhere that their streams are read."""
        if self._streams.released:
            return
        await self._backend.beat(self._streams.owner)
        await self._follower.give_back()
        await self.cancel_asked()
        read = [live.stream_id for live in self._streams.live.values() if live.readers and live.generation is None]
        if read:
            await self._backend.touch_readers(read)

    async def hear_cancels(self) -> None:
        """Wait until somebody elsewhere asks for one of this worker's streams to stop."""
        await self._backend.wait_for_cancels(self._streams.owner, self._lease_seconds)
        await self.cancel_asked()

    async def cancel_asked(self) -> None:
        """Stop the streams of this worker that somebody asked to stop."""
        for stream_id in await self._backend.cancel_requests(self._streams.owner):
            if live := self._streams.live.get(stream_id):
                self._streams.cancel_here(live)

    async def bury(self) -> None:
        """End the leases of workers that died, and take over at once what is read here of theirs."""
        self._dead += self._newly_dead()
        if not self._dead:
            return
        while self._dead:
            await self._backend.expire(self._dead[0])
            del self._dead[0]
        await self._follower.rescue()

    async def reap(self) -> None:
        """Take over what must be finished though nobody reads it; end what nobody came back for."""
        # First: it leaves a damaged store for a new one, and nothing below works before that.
        await self._backend.reap()
        if self._streams.draining:
            return
        for stream_id in await self._backend.orphans():
            try:
                await self._see_after(stream_id)
            except Unreadable as error:
                # Left to workers of a later version; the others must not wait for them.
                log.warning("stream cannot be read by this version", stream=stream_id, detail=error.detail)

    async def _see_after(self, stream_id: str) -> None:
        found = await self._backend.describe(stream_id)
        if found is None or found[1].state != "running" or found[1].owner_alive:
            return
        live = self._streams.live.get(stream_id)
        if found[0].on_disconnect == "finish" or found[1].cancel_requested or (live is not None and live.readers):
            await self._follower.take_over(*found)
        elif found[1].readers_seen:
            return  # left to where they are: what kept them from taking it over, as a log that was away, passes
        elif found[1].orphaned_seconds > self._patience_seconds(found[0]):
            await self._follower.take_over(*found, go_on=False)

    def _patience_seconds(self, record: StreamRecord) -> float:
        """How long a reader may still come and take the stream over."""
        return self._lease_seconds + (record.grace_seconds if record.on_disconnect == "grace" else 0)
