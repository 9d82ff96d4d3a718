"""How a stream begins on Redis: once for each idempotency key, and never without its caller knowing.

In a cluster key and stream are in different slots, so a keyed create takes two steps: the key is reserved for the
stream's id, then the stream is made. Whoever finds the key reserved joins that stream. If it is not there, its maker is
between the two steps, dead, or was refused; past the time that two commands may take, the joiner forbids the id (one
atomic step with seeing that it is not there) and takes the key over. A maker that was only slow is refused then, and
joins in turn. So of all ids that ever held the key, at most one can be made.
"""

import asyncio
import contextlib
import secrets
from time import monotonic

from app.errors import LogFull, LogUnavailable
from app.streams.log import StreamRecord
from app.streams.packing import pack_record, unpack_record
from app.streams.redis.buckets import Buckets
from app.streams.redis.creation_scripts import CREATE, HOLDER, RECORD, RESERVE, UNDO_CREATE, UNRESERVE
from app.streams.redis.link import OutcomeUnknown
from app.streams.room import CREATE_SHARE_MAX

# How long an id stays forbidden: far longer than a command may lie in the buffers of a server that was stopped.
VOID_MS = 600_000
# How long a joiner waits for a stream whose key was reserved within the last second.
MAKING_SECONDS = 1.0
LOOK_SECONDS = 0.01
# Each round of a keyed create lost the key to another maker that died half way.
ROUNDS_MAX = 8


class Creation:
    """Makes streams in `Buckets`.

    Args:
        running_ms: how long a running stream is kept after its last write.
        key_ms: how long an idempotency key is kept; longer than its stream is no harm.
    """

    def __init__(self, buckets: Buckets, running_ms: int, key_ms: int) -> None:
        self._buckets = buckets
        self._running_ms = running_ms
        self._key_ms = key_ms

    async def create(self, record: StreamRecord, owner: str) -> StreamRecord:
        """The stream's record, or that of the stream which has its key already."""
        if not record.idempotency:
            made = await self._make(record, owner)
            if made is None:
                raise LogUnavailable("The stream's id was given up.", retry_after_seconds=1)
            return made
        dead = ""
        for _ in range(ROUNDS_MAX):
            holder, age = await self._reserve(record, dead)
            if holder == record.stream_id:
                made = await self._make_reserved(record, owner)
            else:
                made = await self._join(holder, age)
                dead = holder
            if made is not None:
                return made
        raise LogUnavailable("The stream could not be made.", retry_after_seconds=1)

    async def known(self, record: StreamRecord) -> StreamRecord | None:
        """The stream that has the record's key; None also while it is only about to be made."""
        holder = await self._buckets.of(record.idempotency).call(HOLDER, record.idempotency)
        packed = await self._buckets.of(holder.decode()).call(RECORD, holder.decode(), 0) if holder else None
        return unpack_record(packed) if packed else None

    async def _reserve(self, record: StreamRecord, dead: str) -> tuple[str, int]:
        link = self._buckets.of(record.idempotency)
        holder, age = await link.call(RESERVE, record.idempotency, record.stream_id, self._key_ms, dead)
        return holder.decode(), int(age)

    async def _join(self, holder: str, age: int) -> StreamRecord | None:
        """The stream that holds the key; None once it can never be made."""
        link = self._buckets.of(holder)
        # The age is by Redis's clock; one that was set makes it negative or too large, which costs no more than a wait.
        give_up = monotonic() + (MAKING_SECONDS if 0 <= age <= MAKING_SECONDS else 0)
        while True:
            last = monotonic() >= give_up
            packed = await link.call(RECORD, holder, VOID_MS if last else 0)
            if packed:
                return unpack_record(packed)
            if last:
                return None
            await asyncio.sleep(LOOK_SECONDS)

    async def _make_reserved(self, record: StreamRecord, owner: str) -> StreamRecord | None:
        try:
            return await self._make(record, owner)
        except LogFull:
            # Not a must: who finds the key without a stream takes it over.
            with contextlib.suppress(LogUnavailable):
                await self._buckets.of(record.idempotency).call(UNRESERVE, record.idempotency, record.stream_id)
            raise

    async def _make(self, record: StreamRecord, owner: str) -> StreamRecord | None:
        link, token = self._buckets.of(record.stream_id), secrets.token_hex(8)
        arguments = (record.stream_id, owner, pack_record(record), self._running_ms, token, str(CREATE_SHARE_MAX))
        try:
            made = await link.call(CREATE, *arguments)
        except OutcomeUnknown:
            # Without this the stream could exist, owned by a worker that lives and does not know of it.
            self._buckets.undo(link, UNDO_CREATE, record.stream_id, token, VOID_MS)
            raise
        if made == 1:
            return record
        return unpack_record(made) if made else None
