"""The newest events of one stream, in memory, shared by all its readers on this worker.

Whoever is further behind reads the log: a slow reader costs a cursor here and no memory, and never holds the producer.
"""

from collections.abc import Callable, Sequence

import structlog

from app.errors import SluiceError
from app.events import ENDS, Event, Token
from app.streams.log import Cursor

log = structlog.get_logger(__name__)

# A reader that keeps up is one or two events behind; at 250 bytes each, this is 4 to 8 KB a stream.
EVENTS_KEPT = 16
# While the log is away nobody can read from it, so more is kept: a minute at 60 tokens/s.
UNLOGGED_EVENTS_KEPT = 4096

# The cursor is None while the log is away: such an event has no id, and nobody can resume behind it.
Entry = tuple[Cursor | None, Event]
# Told what is new, and the number of its first entry; without entries, something else has changed.
Wake = Callable[[Sequence[Entry], int], None]


class Tail:
    """Entries are numbered from 0, where this tail began; `start` is the number of the oldest that is kept.

    Args:
        after: the cursor behind which this tail begins.
    """

    def __init__(self, after: Cursor) -> None:
        self.start = 0
        self.entries: list[Entry] = []
        self.last = after
        self.ended = False
        self.broken: SluiceError | None = None
        # How many generations have their turn before this one, which has not begun; None once it has.
        self.ahead: Callable[[], int] | None = None
        # Of what lies before the oldest entry; None where that never got an id, and nobody can say that he is there.
        self._before: Cursor | None = after
        self._unnamed_dropped = 0
        self.forgotten = False
        self._wakers: list[Wake] = []

    @property
    def end(self) -> int:
        """The number that the next entry will have."""
        return self.start + len(self.entries)

    def follow(self, wake: Wake) -> None:
        """Call `wake` after every change from now on."""
        self._wakers.append(wake)

    def unfollow(self, wake: Wake) -> None:
        self._wakers.remove(wake)

    def extend(self, entries: Sequence[Entry]) -> None:
        """Add what is in the log now, or, while the log is away, what never waited for it."""
        held = self.entries
        first = self.start + len(held)
        held.extend(entries)
        cursor, event = entries[-1]
        if cursor is not None:
            self.last = cursor
        if type(event) is not Token and type(event) in ENDS:
            self.ended = True
        if len(held) > 2 * EVENTS_KEPT:
            kept = EVENTS_KEPT if cursor is not None else UNLOGGED_EVENTS_KEPT
            if len(held) > 2 * kept:
                self._drop(len(held) - kept)
        self._wake(entries, first)

    def name_unlogged(self, cursors: Sequence[Cursor]) -> None:
        """Give the newest entries without a cursor theirs: they are in the log now."""
        unnamed = [index for index, (cursor, _) in enumerate(self.entries) if cursor is None]
        dropped = min(len(cursors), self._unnamed_dropped)
        self._unnamed_dropped -= dropped
        # Not strict: more may have come without a cursor since.
        for index, cursor in zip(unnamed, cursors[dropped:], strict=False):
            self.entries[index] = (cursor, self.entries[index][1])
        self.last = cursors[-1]

    def forget_unnamed(self) -> None:
        """Somebody else writes the stream from now on: what came without an id comes again, with one.

        Whoever has it must come back for it on another connection, by which clients know what to drop.
        """
        if self.ended or not (self._unnamed_dropped or any(cursor is None for cursor, _ in self.entries)):
            return
        self.start = self.end + 1  # where nobody stands
        self.entries = []
        self._before = self.last
        self._unnamed_dropped = 0
        self.forgotten = True
        self._wake((), self.end)

    def break_off(self, error: SluiceError) -> None:
        """Whoever fills the tail cannot go on: readers get `error` behind what there is."""
        self.broken = error
        self._wake((), self.end)

    def _wake(self, entries: Sequence[Entry], first: int) -> None:
        for wake in self._wakers:
            try:
                wake(entries, first)
            except Exception:
                # One reader's trouble must not keep a commit from all others that are in it.
                log.exception("waking a reader failed")

    def position(self, after: Cursor) -> int | None:
        """The number of the entry behind `after`; None if that is not kept."""
        for index in range(len(self.entries) - 1, -1, -1):
            if self.entries[index][0] == after:
                return self.start + index + 1
        return self.start if after == self._before else None

    def _drop(self, count: int) -> None:
        self._unnamed_dropped += [cursor for cursor, _ in self.entries[:count]].count(None)
        self._before = self.entries[count - 1][0]
        del self.entries[:count]
        self.start += count
