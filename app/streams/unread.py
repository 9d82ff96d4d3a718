"""What becomes of a stream whose last reader has left this worker: its disconnect policy."""

import asyncio

from app.errors import LogUnavailable
from app.streams.live import LiveStream
from app.streams.registry import Streams

# Of a log that does not answer, before a stream in its grace counts as read by nobody.
LOOKS_MAX = 3


class Unread:
    """One for each worker.

    Args:
        lease_seconds: for so long a reader on another worker counts, once it was seen.
    """

    def __init__(self, streams: Streams, lease_seconds: float) -> None:
        self._streams = streams
        self._lease_seconds = lease_seconds

    async def decide(self, live: LiveStream) -> None:
        """Cancel the stream in its time, unless it is to finish, or is read elsewhere."""
        record = live.record
        if record.on_disconnect == "finish":
            return
        patience_seconds = record.grace_seconds if record.on_disconnect == "grace" else 0.0
        await asyncio.sleep(patience_seconds)
        looks_max = LOOKS_MAX if patience_seconds else 1
        while await self._read_elsewhere(live, looks_max):
            # Polled: readers on other workers only say so at intervals.
            while await self._read_elsewhere(live, looks_max):  # noqa: ASYNC110
                await asyncio.sleep(self._lease_seconds)
            # Whoever left the other worker has the same time to come back as who left this one: a worker there may be
            # about to go as well.
            await asyncio.sleep(patience_seconds)
        if live.readers == 0:
            self._streams.cancel_here(live)

    async def _read_elsewhere(self, live: LiveStream, looks_max: int) -> bool:
        for look in range(looks_max):
            if look:
                await asyncio.sleep(self._lease_seconds)
            try:
                found = await self._streams.backend.describe(live.stream_id)
            except LogUnavailable:
                continue
            return found is not None and found[1].readers_seen
        return False
