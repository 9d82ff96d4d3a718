"""The stream log in this process's memory: for tests, and for a single worker that need not outlive itself.

Entries are kept packed, one per append, as the other backends keep them: a token takes about 50 bytes so instead of
several objects, and no caller can change what is in the log.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import NamedTuple

from app.errors import CursorGone, LogFull, NotFound
from app.events import Event
from app.streams.ending import state_after
from app.streams.log import (
    LEASE_SECONDS,
    START,
    Append,
    AppendResult,
    Cursor,
    Fill,
    State,
    StreamRecord,
    StreamState,
    check_contiguous,
    successor,
)
from app.streams.memory_documents import MemoryDocuments
from app.streams.packing import pack_events, pack_record, unpack_events
from app.streams.repetition import last_cursor, unknown_rest
from app.streams.room import CREATE_SHARE_MAX, TOKENS_SHARE_MAX
from app.streams.waiters import Bells, Waiters

# An entry's tuple, cursor and bytes object, and its place in a list; `sys.getsizeof` of each, rounded up.
ENTRY_OVERHEAD_BYTES = 250
# Most bytes of one page, give or take an entry.
PAGE_BYTES_MAX = 512 * 1024


class _Entry(NamedTuple):
    """One append."""

    last: Cursor
    length: int
    packed: bytes


class _Stream:
    """One stream's record, state and entries."""

    def __init__(self, record: StreamRecord, owner: str) -> None:
        self.record = record
        self.owner = owner
        self.owned_since = monotonic()
        self.released_at: float | None = None
        self.fence = 1
        self.takeovers = 0
        self.state: State = "running"
        self.ended_at = 0.0
        self.cancel_requested = False
        self.readers_at = float("-inf")
        self.entries: list[_Entry] = []
        self.last = START
        self.bytes = 0
        self.overhead_bytes = len(pack_record(record))


class MemoryLog(MemoryDocuments):
    """`StreamLog`, `Leases` and `Documents` of one process.

    Args:
        bytes_max: most bytes that all streams hold together.
        stream_bytes_max: most bytes of events that one stream holds.
        ttl_seconds: how long a stream is kept after its end.
        lease_seconds: how long a worker counts as alive after each `beat`.
    """

    def __init__(
        self,
        bytes_max: int = 256 * 1024 * 1024,
        stream_bytes_max: int = 16 * 1024 * 1024,
        ttl_seconds: float = 900.0,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        super().__init__(bytes_max)
        self._stream_bytes_max = stream_bytes_max
        self._ttl_seconds = ttl_seconds
        self._lease_seconds = lease_seconds
        self._streams: dict[str, _Stream] = {}
        self._by_key: dict[str, str] = {}
        self._lease_until: dict[str, float] = {}
        self._waiters = Waiters()
        self._cancels = Bells()  # by owner

    async def aclose(self) -> None:
        self._waiters.wake_all()
        self._cancels.ring_all()

    async def create(self, record: StreamRecord, owner: str) -> StreamRecord:
        known = self._by_key.get(record.idempotency, record.stream_id)
        if known in self._streams:
            return self._streams[known].record
        if self._bytes > CREATE_SHARE_MAX * self._bytes_max:
            raise LogFull("The server's stream log is full.", retry_after_seconds=5)
        stream = self._streams[record.stream_id] = _Stream(record, owner)
        self._bytes += stream.overhead_bytes
        if record.idempotency:
            self._by_key[record.idempotency] = record.stream_id
        return record

    async def known(self, record: StreamRecord) -> StreamRecord | None:
        found = self._streams.get(self._by_key.get(record.idempotency, record.stream_id))
        return None if found is None else found.record

    async def append(self, batch: Sequence[Append]) -> list[AppendResult]:
        return self.append_nowait(batch)

    def append_nowait(self, batch: Sequence[Append]) -> list[AppendResult]:
        return [self._append(append) for append in batch]

    def _append(self, append: Append) -> AppendResult:
        stream = self._streams.get(append.stream_id)
        if stream is None or stream.fence != append.fence:
            return "fenced"
        if not append.events:
            return "ok"
        if append.first <= stream.last:
            rest = unknown_rest(append, self._held(stream, append))
            return "fenced" if rest is None else self._append(rest)
        if stream.state != "running":
            return "fenced"
        entry = _Entry(last_cursor(append), len(append.events), pack_events(append.events))
        state = state_after(append.events[-1])
        if state == "running" and self._is_full(stream, len(entry.packed)):
            return "full"
        self._add(stream, entry, state)
        return "ok"

    def _held(self, stream: _Stream, append: Append) -> list[tuple[Cursor, Event]]:
        """What is in the log where the append wants to go."""
        at = bisect_left(stream.entries, append.first, key=lambda entry: entry.last)
        held: list[tuple[Cursor, Event]] = []
        while at < len(stream.entries) and len(held) < len(append.events):
            held += (pair for pair in _unpack(stream.entries[at]) if pair[0] >= append.first)
            at += 1
        return held

    def _is_full(self, stream: _Stream, more: int) -> bool:
        if stream.bytes + more > self._stream_bytes_max:
            return True
        return self._bytes + more > TOKENS_SHARE_MAX * self._bytes_max

    def _add(self, stream: _Stream, entry: _Entry, state: State) -> None:
        stream.entries.append(entry)
        stream.last = entry.last
        stream.bytes += len(entry.packed)
        stream.overhead_bytes += ENTRY_OVERHEAD_BYTES
        self._bytes += len(entry.packed) + ENTRY_OVERHEAD_BYTES
        if state != "running":
            stream.state = state
            stream.ended_at = monotonic()
            stream.cancel_requested = False
        self._waiters.wake(stream.record.stream_id)

    async def read(self, stream_id: str, after: Cursor, events_max: int) -> list[tuple[Cursor, Event]]:
        stream = self._find(stream_id)
        found: list[tuple[Cursor, Event]] = []
        bytes_left = PAGE_BYTES_MAX
        at = bisect_right(stream.entries, after, key=lambda entry: entry.last)
        while at < len(stream.entries) and len(found) < events_max and bytes_left > 0:
            pairs = [pair for pair in _unpack(stream.entries[at]) if pair[0] > after]
            if found and not successor(found[-1][0], pairs[0][0]):
                break  # a hole: what lies before it is given out, and whoever asks for more is told
            found += pairs
            bytes_left -= len(stream.entries[at].packed)
            at += 1
        if not found and after != stream.last:
            raise CursorGone("The stream's log no longer holds this id.")
        check_contiguous(after, found[:1])
        return found

    async def describe(self, stream_id: str) -> tuple[StreamRecord, StreamState] | None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return None
        now = monotonic()
        alive_until = self._alive_until(stream)
        return stream.record, StreamState(
            state=stream.state,
            owner=stream.owner,
            owner_alive=alive_until > now,
            orphaned_seconds=max(0.0, now - alive_until),
            fence=stream.fence,
            takeovers=stream.takeovers,
            last=stream.last,
            cancel_requested=stream.cancel_requested,
            readers_seen=now - stream.readers_at < self._lease_seconds,
        )

    async def wait(self, stream_id: str, after: Cursor, seconds: float) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None and stream.last <= after:
            await self._waiters.wait(stream_id, seconds)

    async def beat(self, owner: str) -> None:
        self._lease_until[owner] = monotonic() + self._lease_seconds

    async def expire(self, owner: str) -> None:
        self._lease_until[owner] = min(self._lease_until.get(owner, monotonic()), monotonic())

    async def claim(self, stream_id: str, owner: str, fence: int) -> int | None:
        stream = self._streams.get(stream_id)
        if stream is None or stream.fence != fence or not self._is_orphan(stream):
            return None
        stream.owner = owner
        stream.owned_since = monotonic()
        # Whoever let go of it lives: only deaths are counted.
        stream.takeovers += stream.released_at is None
        stream.released_at = None
        stream.fence += 1
        return stream.fence

    async def release(self, stream_id: str, fence: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None and stream.fence == fence and stream.released_at is None:
            stream.released_at = monotonic()

    async def orphans(self) -> list[str]:
        return [stream_id for stream_id, stream in self._streams.items() if self._is_orphan(stream)]

    async def request_cancel(self, stream_id: str) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None and stream.state == "running":
            stream.cancel_requested = True
            self._cancels.ring(stream.owner)

    async def cancel_requests(self, owner: str) -> list[str]:
        wanted = (item for item in self._streams.items() if item[1].cancel_requested)
        return [stream_id for stream_id, stream in wanted if stream.owner == owner]

    async def wait_for_cancels(self, owner: str, seconds: float) -> None:
        await self._cancels.wait(owner, seconds)

    async def touch_readers(self, stream_ids: Sequence[str]) -> None:
        for stream_id in stream_ids:
            if stream := self._streams.get(stream_id):
                stream.readers_at = monotonic()

    async def reap(self) -> None:
        """Forget what ended more than `ttl_seconds` ago."""
        horizon = monotonic() - self._ttl_seconds
        for stream_id, stream in list(self._streams.items()):
            if stream.state != "running" and stream.ended_at < horizon:
                del self._streams[stream_id]
                self._bytes -= stream.bytes + stream.overhead_bytes
                if self._by_key.get(stream.record.idempotency) == stream_id:
                    del self._by_key[stream.record.idempotency]
                self._waiters.wake(stream_id)
        await self._reap_documents()

    async def fill(self) -> Fill:
        return Fill(self._bytes, self._bytes_max)

    async def trim(self, stream_id: str, through: Cursor) -> None:
        """Drop the entries that end at `through` or before; whoever still needs them gets `CursorGone`."""
        stream = self._find(stream_id)
        kept = bisect_right(stream.entries, through, key=lambda entry: entry.last)
        dropped = sum(len(entry.packed) for entry in stream.entries[:kept])
        del stream.entries[:kept]
        stream.bytes -= dropped
        stream.overhead_bytes -= kept * ENTRY_OVERHEAD_BYTES
        self._bytes -= dropped + kept * ENTRY_OVERHEAD_BYTES

    def _find(self, stream_id: str) -> _Stream:
        stream = self._streams.get(stream_id)
        if stream is None:
            raise NotFound("There is no such stream, or no longer.")
        return stream

    def _alive_until(self, stream: _Stream) -> float:
        """When the owner stopped, or will stop, to count as alive. One that never took a lease never did."""
        if stream.released_at is not None:
            return stream.released_at
        return max(self._lease_until.get(stream.owner, stream.owned_since), stream.owned_since)

    def _is_orphan(self, stream: _Stream) -> bool:
        return stream.state == "running" and self._alive_until(stream) <= monotonic()


def _unpack(entry: _Entry) -> Iterator[tuple[Cursor, Event]]:
    epoch, last = entry.last
    for seq, event in enumerate(unpack_events(entry.packed), last - entry.length + 1):
        yield Cursor(epoch, seq), event
