"""What this worker wrote last of each stream, for a server that has lost it: a failover mostly loses a few moments."""

from collections import deque
from itertools import pairwise

from msgspec.structs import replace

from app.events import ENDS
from app.streams.log import Append, Cursor
from app.streams.packing import pack_events, unpack_events

# At 20 tokens a second 0.8 s; a replica that keeps up is behind by milliseconds. 3 KB a stream.
APPENDS_MAX = 16
# What came back from a backlog is one append, and may be long.
EVENTS_MAX = 256
# Ended streams that are remembered: nobody writes them again, so they are given back when a new server is found.
ENDED_MAX = 500

# An append: its fence, epoch and first seq, and its events as they were stored, which take less than half of the
# memory; they are looked at only where a server has lost them.
_Kept = tuple[int, int, int, bytes]


class Recent:
    """One for each log."""

    def __init__(self) -> None:
        self._appends: dict[str, deque[_Kept]] = {}
        self._ended: dict[str, _Kept] = {}

    def add(self, append: Append, packed: bytes) -> None:
        """It is in the log, as far as the server says.

        Args:
            packed: its events, by `pack_events`.
        """
        kept = self._appends.get(append.stream_id)
        if kept is None:
            kept = self._appends[append.stream_id] = deque(maxlen=APPENDS_MAX)
        kept.append(_keep(append, packed) if len(append.events) <= EVENTS_MAX else _keep_newest(append))
        if isinstance(append.events[-1], ENDS):
            whole = self._whole(append.stream_id)
            del self._appends[append.stream_id]
            if whole is not None:
                self._ended[append.stream_id] = _keep(whole, pack_events(whole.events))
            if len(self._ended) > ENDED_MAX:
                del self._ended[next(iter(self._ended))]

    def forget(self, stream_id: str) -> None:
        """Somebody else writes it."""
        self._appends.pop(stream_id, None)

    @property
    def ended(self) -> list[Append]:
        """The ends of streams that ended lately, each with what lies before it."""
        return [_append(stream_id, kept) for stream_id, kept in self._ended.items()]

    def behind(self, stream_id: str, last: Cursor) -> Append | None:
        """What was written of a stream behind `last`, which may be nothing; None if that is not remembered."""
        whole = self._whole(stream_id)
        if whole is None:
            return None
        if last >= _last(whole):
            return replace(whole, events=[])
        missing = last.seq + 1 - whole.first.seq
        if whole.first.epoch != last.epoch or missing < 0:
            return None
        return replace(whole, first=Cursor(last.epoch, last.seq + 1), events=whole.events[missing:])

    def _whole(self, stream_id: str) -> Append | None:
        """The newest appends that lie one behind the other, as one."""
        kept = [_append(stream_id, each) for each in self._appends.get(stream_id, ())]
        if not kept:
            return None
        breaks = (at for at, (before, after) in enumerate(pairwise(kept), 1) if after.first != _next(before))
        run = kept[max(breaks, default=0) :]
        return Append(stream_id, run[-1].fence, run[0].first, [event for append in run for event in append.events])


def _keep(append: Append, packed: bytes) -> _Kept:
    epoch, seq = append.first
    return append.fence, epoch, seq, packed


def _keep_newest(append: Append) -> _Kept:
    epoch, seq = append.first
    newest = append.events[-EVENTS_MAX:]
    return append.fence, epoch, seq + len(append.events) - EVENTS_MAX, pack_events(newest)


def _append(stream_id: str, kept: _Kept) -> Append:
    fence, epoch, seq, packed = kept
    return Append(stream_id, fence, Cursor(epoch, seq), unpack_events(packed))


def _next(append: Append) -> Cursor:
    return Cursor(append.first.epoch, append.first.seq + len(append.events))


def _last(append: Append) -> Cursor:
    return Cursor(append.first.epoch, append.first.seq + len(append.events) - 1)
