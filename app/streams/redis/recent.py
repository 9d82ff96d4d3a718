"""What this worker wrote last of each stream, for a server that has lost it: a failover mostly loses a few moments."""

from collections import deque
from itertools import pairwise

from app.events import ENDS
from app.streams.log import Append, Cursor

# At 20 tokens a second 0.8 s; a replica that keeps up is behind by milliseconds. 4 KB a stream.
APPENDS_MAX = 16
# What came back from a backlog is one append, and may be long.
EVENTS_MAX = 256
# Ended streams that are remembered: nobody writes them again, so they are given back when a new server is found.
ENDED_MAX = 500


class Recent:
    """One for each log."""

    def __init__(self) -> None:
        self._appends: dict[str, deque[Append]] = {}
        self._ended: dict[str, Append] = {}

    def add(self, append: Append) -> None:
        """It is in the log, as far as the server says."""
        kept = self._appends.get(append.stream_id)
        if kept is None:
            kept = self._appends[append.stream_id] = deque(maxlen=APPENDS_MAX)
        kept.append(_newest(append))
        if isinstance(append.events[-1], ENDS):
            whole = self._whole(append.stream_id)
            del self._appends[append.stream_id]
            if whole is not None:
                self._ended[append.stream_id] = whole
            if len(self._ended) > ENDED_MAX:
                del self._ended[next(iter(self._ended))]

    def forget(self, stream_id: str) -> None:
        """Somebody else writes it."""
        self._appends.pop(stream_id, None)

    @property
    def ended(self) -> list[Append]:
        """The ends of streams that ended lately, each with what lies before it."""
        return list(self._ended.values())

    def behind(self, last: Cursor, append: Append) -> Append | None:
        """`append`, and before it all that lies behind `last`; None if that is not remembered."""
        whole = self._whole(append.stream_id)
        if whole is None or whole.first.epoch != last.epoch or append.first != _next(whole):
            return None
        missing = last.seq + 1 - whole.first.seq
        if missing < 0:
            return None
        first = Cursor(last.epoch, last.seq + 1)
        return Append(append.stream_id, append.fence, first, [*whole.events[missing:], *append.events])

    def _whole(self, stream_id: str) -> Append | None:
        """The newest appends that lie one behind the other, as one."""
        kept = list(self._appends.get(stream_id, ()))
        if not kept:
            return None
        breaks = (at for at, (before, after) in enumerate(pairwise(kept), 1) if after.first != _next(before))
        run = kept[max(breaks, default=0) :]
        return Append(stream_id, run[-1].fence, run[0].first, [event for append in run for event in append.events])


def _newest(append: Append) -> Append:
    dropped = len(append.events) - EVENTS_MAX
    if dropped <= 0:
        return append
    first = Cursor(append.first.epoch, append.first.seq + dropped)
    return Append(append.stream_id, append.fence, first, append.events[dropped:])


def _next(append: Append) -> Cursor:
    return Cursor(append.first.epoch, append.first.seq + len(append.events))
