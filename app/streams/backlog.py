"""What streams said while the log was away, kept for its return within a bound of bytes; readers have it already."""

from collections import deque
from collections.abc import Iterator, Sequence

from app.events import Event, Token
from app.streams.generation import Generation
from app.streams.log import Append, Cursor

# 25,000 short tokens: some twenty minutes of one stream.
STREAM_BYTES_MAX = 4 * 1024 * 1024
# Over a minute of what a worker's streams say at its capacity, and a tenth of a pod's memory.
WORKER_BYTES_MAX = 64 * 1024 * 1024
# What an event takes in memory beside its text.
EVENT_BYTES = 160


class _Kept:
    """One stream's."""

    def __init__(self) -> None:
        self.appends: deque[Append] = deque()
        self.bytes = 0
        # What did not fit: first cursor and number of events, of each run of cursors.
        self.lost: list[tuple[Cursor, int]] = []


class Backlog:
    """One for each worker. Where there is no room a stream's oldest is lost to the log: whoever reads across that hole
    is told so."""

    def __init__(self, stream_bytes_max: int = STREAM_BYTES_MAX, worker_bytes_max: int = WORKER_BYTES_MAX) -> None:
        self._stream_bytes_max = stream_bytes_max
        self._worker_bytes_max = worker_bytes_max
        self._kept: dict[Generation, _Kept] = {}
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._kept)

    def __contains__(self, generation: Generation) -> bool:
        return generation in self._kept

    def __iter__(self) -> Iterator[Generation]:
        return iter(list(self._kept))

    def add(self, generation: Generation, append: Append) -> None:
        """Keep what the stream said last."""
        kept = self._kept.setdefault(generation, _Kept())
        kept.appends.append(append)
        self._resize(kept, _bytes(append.events))
        while len(kept.appends) > 1 and (kept.bytes > self._stream_bytes_max or self.bytes > self._worker_bytes_max):
            oldest = self._pop(kept)
            _lose(kept.lost, oldest.first, len(oldest.events))

    def append_of(self, generation: Generation) -> Append:
        """What is kept of a stream up to its next reset, as one append; it is contiguous."""
        appends = self._kept[generation].appends
        first = appends[0]
        events = [event for append in appends if append.first.epoch == first.first.epoch for event in append.events]
        return Append(first.stream_id, first.fence, first.first, events)

    def settle(self, generation: Generation, append: Append) -> list[Cursor]:
        """The log has taken a stream's `append_of`; more may have been kept since.

        Returns:
            the cursors of what readers have without ids: of the append, and of what was lost before it.
        """
        kept = self._kept[generation]
        behind = _behind(append.first, len(append.events))
        while kept.appends and kept.appends[0].first < behind:
            self._pop(kept)
        if not kept.appends:
            del self._kept[generation]
        lost = [cursor for run in kept.lost for cursor in _cursors(*run)]
        kept.lost = []
        for cursor in lost:
            if cursor >= behind:  # while the append was on its way
                _lose(kept.lost, cursor, 1)
        before = [cursor for cursor in lost if cursor < append.first]
        return before + _cursors(append.first, len(append.events))

    def drop(self, generation: Generation) -> None:
        """Give a stream's up."""
        kept = self._kept.pop(generation, None)
        if kept is not None:
            self.bytes -= kept.bytes

    def _pop(self, kept: _Kept) -> Append:
        oldest = kept.appends.popleft()
        self._resize(kept, -_bytes(oldest.events))
        return oldest

    def _resize(self, kept: _Kept, by: int) -> None:
        kept.bytes += by
        self.bytes += by


def _lose(lost: list[tuple[Cursor, int]], first: Cursor, count: int) -> None:
    if lost and _behind(*lost[-1]) == first:
        first, count = lost[-1][0], lost.pop()[1] + count
    lost.append((first, count))


def _cursors(first: Cursor, count: int) -> list[Cursor]:
    return [Cursor(first.epoch, first.seq + offset) for offset in range(count)]


def _behind(first: Cursor, count: int) -> Cursor:
    return Cursor(first.epoch, first.seq + count)


def _bytes(events: Sequence[Event]) -> int:
    return sum(EVENT_BYTES + (len(event.text) if type(event) is Token else 0) for event in events)
