"""The stream log on Redis: for workers of many machines, on one server, a Sentinel group or a cluster.

A batch is one script call a bucket, and a stream's share of it one entry (`script` has the keys). Commands go
over a few connections a bucket, each bounded in time (`link`); waiting has a connection of its own, whatever the
number of readers (`tail`).

What Redis may lose is never lost in silence. A stream that was evicted or flushed is fenced for its owner and not found
for its readers. After a failover or a restart that cost events, the owner gives them again, as far as it remembers
them; if it does not, or is gone, the stream begins again in another epoch. Events between two that are there cannot be
missed by a reader, since every entry says where it begins.
"""

import asyncio
import sys
from collections.abc import Sequence
from typing import Self

import structlog

from app.errors import CursorGone, LogUnavailable, NotFound
from app.events import Event
from app.streams.ending import state_after
from app.streams.log import (
    LEASE_SECONDS,
    START,
    Append,
    AppendResult,
    Cursor,
    Fill,
    StreamRecord,
    StreamState,
    check_contiguous,
    successor,
)
from app.streams.packing import pack_events, unpack_record
from app.streams.redis.buckets import Buckets, gather
from app.streams.redis.creation import Creation
from app.streams.redis.documents import RedisDocuments
from app.streams.redis.entry import decode_entry
from app.streams.redis.event_scripts import APPEND, CONFIRM, DESCRIBE, READ, TRIM
from app.streams.redis.leases import HORIZON_MS, RedisLeases
from app.streams.redis.recent import EVENTS_MAX, Recent
from app.streams.redis.tail import Tail
from app.streams.redis.topology import Connector, topology_of
from app.streams.redis.url import parse_redis_url
from app.streams.redis.wire import Argument
from app.streams.repetition import unknown_rest
from app.streams.waiters import Bells

log = structlog.get_logger(__name__)

# XADD NOMKSTREAM, XTRIM MINID and exclusive ranges.
VERSION_MIN = (6, 2)
# Most bytes of one page: they are decoded without a pause, and at 500 MB/s this is a millisecond.
PAGE_BYTES_MAX = 512 * 1024
# Most bytes in one call, give or take a stream's share. What was kept while Redis was away comes back in one batch; all
# of it in one call would never be done in the time that a command has.
CALL_BYTES_MAX = 512 * 1024
_RESULTS: dict[int, AppendResult] = {0: "fenced", 1: "ok", 2: "full"}
_IN_ITS_PLACE = 3
_BEHIND_LOSS = 4
Page = list[tuple[Cursor, Event]]


class RedisLog(RedisLeases, RedisDocuments):
    """`StreamLog`, `Leases` and `Documents` on Redis; `open` comes first.

    Args:
        url: see `url`.
        stream_bytes_max: most bytes of events that one stream holds.
        ttl_seconds: how long a stream is kept after its end.
        lease_seconds: how long a worker counts as alive after each `beat`.
        running_seconds: how long a running stream is kept after its last write; more than the longest stream with its
            takeovers, and the time in which its readers may come back.
        command_seconds: a command that takes longer has failed.
        probe_seconds: how often the connection that waits is proved to be alive.

    Raises:
        LogUnavailable: the URL is none of ours; the message shows it without the password.
    """

    def __init__(
        self,
        url: str,
        stream_bytes_max: int = 16 * 1024 * 1024,
        ttl_seconds: float = 900.0,
        lease_seconds: float = LEASE_SECONDS,
        running_seconds: float = 7200.0,
        command_seconds: float = 0.25,
        probe_seconds: float = 1.0,
    ) -> None:
        try:
            self._url = parse_redis_url(url)
        except ValueError as error:
            raise LogUnavailable(str(error)) from None
        connector = Connector(self._url, command_seconds)
        topology = topology_of(connector, command_seconds)
        # Appends need one; the others are for readers who catch up. In a cluster a bucket has a sixteenth of them.
        connections_max = 6 if topology.buckets == 1 else 2
        buckets = Buckets(connector, topology, command_seconds, connections_max)
        super().__init__(buckets, lease_seconds, running_seconds)
        self._stream_bytes_max = stream_bytes_max
        self._ended_ms = int(ttl_seconds * 1000)
        self._creation = Creation(buckets, self._running_ms, self._running_ms + self._ended_ms)
        self._tails = [Tail(link, probe_seconds) for link in buckets.links]
        self._cancels = Bells()  # by owner
        self._recent = Recent()
        self._servers: list[bytes] = []

    async def open(self) -> Self:
        """Connect and see that the server is one that this log can live on.

        Raises:
            LogUnavailable: it is not; the message says why, without the password.
        """
        try:
            await self._check()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def _check(self) -> None:
        await self._buckets.connect()
        for link in self._buckets.links:
            info = await link.info()
            version = info.get("redis_version", "7.0")
            if tuple(int(part) for part in version.split(".")[:2]) < VERSION_MIN:
                raise LogUnavailable(f"{self._url.safe}: Redis {version} is too old, 6.2 is the oldest that will do")
            policy = info.get("maxmemory_policy", "unknown")
            if link.bucket == 0 and policy != "noeviction":
                # A full server then deletes streams that run, instead of refusing new ones.
                log.warning("redis may evict streams; set maxmemory-policy noeviction", policy=policy)

    async def aclose(self) -> None:
        for tail in self._tails:
            await tail.aclose()
        self._cancels.ring_all()
        await self._buckets.aclose()

    async def create(self, record: StreamRecord, owner: str) -> StreamRecord:
        return await self._creation.create(record, owner)

    async def known(self, record: StreamRecord) -> StreamRecord | None:
        return await self._creation.known(record)

    async def append(self, batch: Sequence[Append]) -> list[AppendResult]:
        if len(self._buckets.links) == 1:
            return await self._append(0, batch)
        places: dict[int, list[int]] = {}
        for place, append in enumerate(batch):
            places.setdefault(self._buckets.number(append.stream_id), []).append(place)
        calls = [self._append_if_there(number, [batch[place] for place in some]) for number, some in places.items()]
        results: list[AppendResult] = ["ok"] * len(batch)
        answers = await gather(*calls)
        for some, found in zip(places.values(), answers, strict=True):
            for place, result in zip(some, found or ["unavailable"] * len(some), strict=True):
                results[place] = result
        if answers and not any(answers):
            raise LogUnavailable("The stream log does not answer.", retry_after_seconds=1)
        return results

    async def _append_if_there(self, bucket: int, batch: Sequence[Append]) -> list[AppendResult] | None:
        try:
            return await self._append(bucket, batch)
        except LogUnavailable as error:
            log.debug("bucket unavailable", bucket=bucket, detail=error.detail or error.message)
            return None

    def append_nowait(self, batch: Sequence[Append]) -> list[AppendResult] | None:  # noqa: ARG002
        """Redis is asked, and asking takes time."""
        return None

    async def _append(self, bucket: int, batch: Sequence[Append]) -> list[AppendResult]:
        link = self._buckets.links[bucket]
        bounds: list[Argument] = [self._running_ms, self._ended_ms, self._stream_bytes_max]
        arguments, size = [*bounds], 0
        codes: list[int] = []
        packs: list[bytes] = []
        for append in batch:
            epoch, first = append.first
            events = append.events
            packed, state = (pack_events(events), state_after(events[-1])) if events else (b"", "running")
            arguments += (append.stream_id, append.fence, epoch, first, first + len(events) - 1, state, packed)
            # Held until the batch is done; a long one is packed anew, since only its newest are remembered.
            packs.append(packed if len(events) <= EVENTS_MAX else b"")
            size += len(packed)
            if size >= CALL_BYTES_MAX:
                codes += await link.call(APPEND, *arguments)
                arguments, size = [*bounds], 0
        if len(arguments) > len(bounds):
            codes += await link.call(APPEND, *arguments)
        found = zip(codes, batch, packs, strict=True)
        return [await self._result(bucket, append, packed, code) for code, append, packed in found]

    async def _result(self, bucket: int, append: Append, packed: bytes, code: int) -> AppendResult:
        if code == _IN_ITS_PLACE:
            return await self._append_rest(bucket, append)
        if code == _BEHIND_LOSS:
            return await self._append_behind_loss(bucket, append)
        result = _RESULTS[code]
        if result == "ok" and append.events:
            self._recent.add(append, packed)
        elif result == "fenced":
            self._recent.forget(append.stream_id)
        return result

    async def _append_rest(self, bucket: int, append: Append) -> AppendResult:
        """What of an append is not in the log yet: an answer was lost, and it came again."""
        epoch, first = append.first
        place = f"{epoch}-{first}" if append.first > START else "-"
        held: Page = []
        while len(held) < len(append.events):
            found = await self._entries(append.stream_id, place, len(append.events))
            if not found or not found[1]:
                break
            held += [pair for pair in found[1] if pair[0] >= append.first]
            place = f"({held[-1][0].epoch}-{held[-1][0].seq}"
        rest = unknown_rest(append, held)
        if rest is None:
            return "fenced"
        return (await self._append(bucket, [rest]))[0]

    async def _append_behind_loss(self, bucket: int, append: Append) -> AppendResult:
        """Give the server again what it has lost; or give the stream up, for whoever claims it to begin it again."""
        found = await self._entries(append.stream_id, "+", 0)
        if found is None:
            return "fenced"
        last = found[0]
        again = self._recent.behind(append.stream_id, last)
        if again is None:
            log.warning("redis lost a part of a stream", stream=append.stream_id, last=last, next=append.first)
            await self.release(append.stream_id, append.fence)
            return "fenced"
        result: AppendResult = "ok"
        if again.events:
            log.info("gave again what redis lost", stream=append.stream_id, events=len(again.events))
            result = (await self._append(bucket, [again]))[0]
        else:  # the hole is ours: what there was no room for while Redis was away
            await self._buckets.links[bucket].call(CONFIRM, append.stream_id, append.fence, *last)
        return (await self._append(bucket, [append]))[0] if result == "ok" else result

    async def beat(self, owner: str) -> None:
        await super().beat(owner)
        servers = [link.server for link in self._buckets.links]
        if servers != self._servers:
            # Nobody writes an ended stream again, so that nobody else would notice that its end was lost.
            for append in self._recent.ended:
                await self.append([append])
            self._servers = servers

    async def read(self, stream_id: str, after: Cursor, events_max: int) -> Page:
        kept = self._tails[self._buckets.number(stream_id)].kept(stream_id, after, events_max)
        if kept:
            return kept
        found = await self._entries(stream_id, f"({after.epoch}-{after.seq}", events_max)
        if found is None:
            raise NotFound("There is no such stream, or no longer.")
        last, entries = found
        page: Page = []
        for pair in entries:
            if pair[0] <= after:
                continue
            if page and not successor(page[-1][0], pair[0]):
                break  # a hole: what lies before it is given out, and whoever asks for more is told
            page.append(pair)
        if not page and after != last:
            raise CursorGone("The stream's log no longer holds this id.")
        check_contiguous(after, page[:1])
        return page

    async def _entries(self, stream_id: str, start: str, events_max: int) -> tuple[Cursor, Page] | None:
        """The stream's last cursor, and whole entries from `start` on; None if there is no such stream."""
        found = await self._buckets.of(stream_id).call(READ, stream_id, start, events_max, PAGE_BYTES_MAX)
        if not found:
            return None
        epoch, seq, *flat = found
        entries = zip(flat[::2], flat[1::2], strict=True)
        return Cursor(epoch, seq), [pair for place, packed in entries for pair in decode_entry(place, packed)]

    async def describe(self, stream_id: str) -> tuple[StreamRecord, StreamState] | None:
        found = await self._buckets.of(stream_id).call(DESCRIBE, stream_id, self._lease_ms, HORIZON_MS)
        if not found:
            return None
        packed, state, owner, alive, orphaned_ms, fence, takeovers, epoch, seq, cancel, readers, in_doubt = found
        return unpack_record(packed), StreamState(
            state=state.decode(),
            owner=owner.decode(),
            owner_alive=bool(alive),
            orphaned_seconds=orphaned_ms / 1000,
            fence=fence,
            takeovers=takeovers,
            last=Cursor(epoch, seq),
            cancel_requested=bool(cancel),
            readers_seen=bool(readers),
            in_doubt=bool(in_doubt),
        )

    async def wait(self, stream_id: str, after: Cursor, seconds: float) -> None:
        await self._tails[self._buckets.number(stream_id)].wait(stream_id, after, seconds)

    async def wait_for_cancels(self, owner: str, seconds: float) -> None:
        for tail in self._tails:
            tail.listen_for_cancels(owner, self._cancels.ring)
        await self._cancels.wait(owner, seconds)

    async def fill(self) -> Fill:
        infos = await gather(*(link.info() for link in self._buckets.links))
        fills = [Fill(int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))) for info in infos]
        return max(fills, key=lambda fill: (fill.bytes_used / (fill.bytes_max or sys.maxsize), fill.bytes_used))

    async def reap(self) -> None:
        """Nothing: Redis forgets what is over by itself."""
        await asyncio.sleep(0)

    async def trim(self, stream_id: str, through: Cursor) -> None:
        """Drop the entries that end at `through` or before; whoever still needs them gets `CursorGone`."""
        await self._buckets.of(stream_id).call(TRIM, stream_id, f"{through.epoch}-{through.seq + 1}")
