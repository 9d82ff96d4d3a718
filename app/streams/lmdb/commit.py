"""One transaction that adds to many streams: the fence is looked at here, in the same transaction that writes."""

from collections.abc import Sequence

from app.events import Token
from app.streams.ending import state_after
from app.streams.lmdb import events as lmdb_events
from app.streams.lmdb.events import Entry
from app.streams.lmdb.room import LmdbRoom
from app.streams.lmdb.streams import LmdbStreams
from app.streams.lmdb.tables import RUNNING, Tables, Write, unpack_fence
from app.streams.log import Append, AppendResult
from app.streams.repetition import unknown_rest

# By stream: the fence under which this process wrote there last, the end that this made, and the bytes up to it. Under
# one fence nobody else writes, so as long as it holds, the end need not be looked for: a third of what an append costs.
Ends = dict[str, tuple[int, tuple[int, int], int]]


class LmdbCommit:
    """Appends, one after the other.

    `ends` are those that it made, to be kept once the transaction is committed.

    Args:
        known: those of earlier transactions.
        room: what the store has left; None while only terminal events are taken.
        stream_bytes_max: most bytes of events that a stream may take.
    """

    def __init__(
        self,
        transaction: Write,
        tables: Tables,
        streams: LmdbStreams,
        room: LmdbRoom | None,
        stream_bytes_max: int,
        known: Ends,
    ) -> None:
        self.ends: Ends = {}
        self._known = known
        self._room = room
        self._transaction = transaction
        self._states = tables.states
        self._events = transaction.cursor(tables.events)
        self._streams = streams
        self._stream_bytes_max = stream_bytes_max

    def append(self, append: Append, entries: Sequence[Entry]) -> AppendResult:
        """Add one append, which is stored as `entries`."""
        stream_id, events = append.stream_id, append.events
        stream = stream_id.encode()
        row = self._transaction.get(stream, db=self._states)
        if row is None:
            return "fenced"
        fence, state_number = unpack_fence(row)
        if fence != append.fence:
            return "fenced"
        if not entries:
            return "ok"
        known = self.ends.get(stream_id) or self._known.get(stream_id)
        if known is not None and known[0] == fence:
            _, last, bytes_before = known
        else:
            last, bytes_before = lmdb_events.end_of(self._events, stream)
        first = append.first
        if first <= last:
            return self._repeat(append, stream)
        if state_number != RUNNING:
            return "fenced"
        size = 0
        for _, packed in entries:
            size += len(packed)
        if type(events[-1]) is not Token and (state := state_after(events[-1])) != "running":
            self._streams.close(self._transaction, stream, state)
        elif (
            bytes_before + size > self._stream_bytes_max
            or self._room is None
            or not self._room.take(self._transaction, size)
        ):
            return "full"
        epoch = first[0]
        lmdb_events.put(self._events, stream, epoch, entries, bytes_before)
        self.ends[stream_id] = (fence, (epoch, entries[-1][0]), bytes_before + size)
        return "ok"

    def _repeat(self, append: Append, stream: bytes) -> AppendResult:
        held = lmdb_events.held(self._events, stream, append.first, len(append.events))
        rest = unknown_rest(append, held)
        return "fenced" if rest is None else self.append(rest, lmdb_events.pack(rest))
