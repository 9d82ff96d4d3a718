"""Who produces which stream, on Redis: leases, claims, and what workers tell each other.

A worker's lease is a key in every bucket, so that the script which takes a stream over reads it in the same moment. In
a cluster each bucket then judges by what reaches it: a worker that is cut off from one node loses the streams there,
which it could not write anyway, and keeps all others. No lease decides who may write: the fence does.
"""

import secrets
from collections.abc import Sequence
from time import monotonic

from app.events import Reset
from app.streams.packing import pack_events
from app.streams.redis.buckets import Buckets, gather
from app.streams.redis.link import Link, OutcomeUnknown
from app.streams.redis.ownership_scripts import (
    BEAT,
    CANCEL_REQUESTS,
    CLAIM,
    EXPIRE,
    ORPHANS,
    RELEASE,
    REQUEST_CANCEL,
    TOUCH_READERS,
    UNDO_CLAIM,
)

# For how long after a lease's end it is known when that was. Longer than any grace period.
HORIZON_MS = 3_600_000
# Orphans of one bucket in one reply; a reaper comes again.
ORPHANS_MAX = 1_000
# For how long an owner's tail can still hear that it is to cancel something; its next beat tells it in any case.
CANCEL_HINT_MS = 60_000
# An outage of so much of a lease lets at most one renewal fail, and two may.
HICCUP_SHARE = 0.25
_RESET = pack_events([Reset("the stream log lost a part of the stream")])


class RedisLeases:
    """`Leases`, on `Buckets`.

    Args:
        lease_seconds: how long a worker counts as alive after each `beat`.
        running_seconds: how long a running stream is kept after its last write.
    """

    def __init__(self, buckets: Buckets, lease_seconds: float, running_seconds: float) -> None:
        self._buckets = buckets
        self._lease_ms = int(lease_seconds * 1000)
        self._running_ms = int(running_seconds * 1000)

    async def beat(self, owner: str) -> None:
        await self._buckets.everywhere(BEAT, owner, self._lease_ms, HORIZON_MS)

    async def expire(self, owner: str) -> None:
        await self._buckets.everywhere(EXPIRE, owner, self._lease_ms, HORIZON_MS)

    async def claim(self, stream_id: str, owner: str, fence: int) -> int | None:
        link, token = self._buckets.of(stream_id), secrets.token_hex(8)
        if not self._can_judge(link):
            return None
        times = (self._lease_ms, HORIZON_MS)
        try:
            claimed = await link.call(CLAIM, stream_id, owner, fence, *times, self._running_ms, token, _RESET)
        except OutcomeUnknown:
            # Without this the stream could belong to a worker that lives and does not know that it has to produce.
            self._buckets.undo(link, UNDO_CLAIM, stream_id, fence, token, *times)
            raise
        return int(claimed) or None

    async def release(self, stream_id: str, fence: int) -> None:
        await self._buckets.of(stream_id).call(RELEASE, stream_id, fence)

    async def orphans(self) -> list[str]:
        found = await self._buckets.everywhere(ORPHANS, self._lease_ms, HORIZON_MS, ORPHANS_MAX, only=self._can_judge)
        return [stream_id.decode() for orphans in found for stream_id in orphans]

    def _can_judge(self, link: Link) -> bool:
        """Whether a lease that is over there says anything: while the server was away, nobody could renew his."""
        lease_seconds = self._lease_ms / 1000
        return link.away_seconds < HICCUP_SHARE * lease_seconds or monotonic() - link.back_at > lease_seconds

    async def request_cancel(self, stream_id: str) -> None:
        await self._buckets.of(stream_id).call(REQUEST_CANCEL, stream_id, CANCEL_HINT_MS)

    async def cancel_requests(self, owner: str) -> list[str]:
        found = await self._buckets.everywhere(CANCEL_REQUESTS, owner)
        return [stream_id.decode() for requests in found for stream_id in requests]

    async def touch_readers(self, stream_ids: Sequence[str]) -> None:
        by_bucket: dict[int, list[str]] = {}
        for stream_id in stream_ids:
            by_bucket.setdefault(self._buckets.number(stream_id), []).append(stream_id)
        await gather(
            *(
                self._buckets.links[number].call(TOUCH_READERS, self._lease_ms, *some)
                for number, some in by_bucket.items()
            )
        )
