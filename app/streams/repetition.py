"""What is new in an append that a log may have taken before.

A committer that got no answer sends its events again, and more with them. It must neither be refused, since then a
stream would end for a lost answer, nor put other content under an id that is out already.
"""

from collections.abc import Sequence

from app.events import Event
from app.streams.log import Append, Cursor


def cursors(append: Append) -> list[tuple[Cursor, Event]]:
    """The append's events under their cursors."""
    epoch, first = append.first
    return [(Cursor(epoch, seq), event) for seq, event in enumerate(append.events, first)]


def last_cursor(append: Append) -> Cursor:
    """The cursor of the append's last event."""
    return Cursor(append.first.epoch, append.first.seq + len(append.events) - 1)


def unknown_rest(append: Append, known: Sequence[tuple[Cursor, Event]]) -> Append | None:
    """The part of `append` that is not in the log, which may be empty; None if the log holds something else there.

    Args:
        known: what the log holds from `append.first` on, as far as the append reaches or the log goes.
    """
    length = min(len(known), len(append.events))
    if not length or list(known[:length]) != cursors(append)[:length]:
        return None
    behind = Cursor(append.first.epoch, append.first.seq + length)
    return Append(append.stream_id, append.fence, behind, append.events[length:])
