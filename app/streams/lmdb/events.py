"""The table of events: one entry for each append, under the cursor of its last event.

    stream 00 epoch last-seq -> bytes of the stream so far, then the packed events

So the last entry alone says where the stream ends and how large it is, and an append rewrites nothing.
"""

import struct
from collections.abc import Iterator, Sequence
from time import monotonic

from app.errors import CursorGone
from app.events import Event
from app.streams.lmdb.tables import LmdbCursor
from app.streams.log import START, Append, Cursor, check_contiguous, successor
from app.streams.packing import pack_events, unpack_events

# A backlog that comes in one append is cut into entries of this length, so that no page of a reader is much longer
# than it asked for.
ENTRY_EVENTS_MAX = 500
# Most bytes of one page, give or take an entry: a reader that takes nothing holds one, and decoding it holds the loop
# for a millisecond.
PAGE_BYTES_MAX = 512 * 1024
_PLACE = struct.Struct(">II")
_BYTES = struct.Struct(">Q")


# The last event's seq, and the packed events. Plain tuples here and below: an entry is made for every token.
Entry = tuple[int, bytes]


def pack(append: Append) -> list[Entry]:
    """What an append stores. Apart from storing it, since it takes time that nobody else has to wait for."""
    events, before = append.events, append.first.seq - 1
    if len(events) <= ENTRY_EVENTS_MAX:
        return [(before + len(events), pack_events(events))] if events else []
    entries = []
    for start in range(0, len(events), ENTRY_EVENTS_MAX):
        part = events[start : start + ENTRY_EVENTS_MAX]
        entries.append((before + start + len(part), pack_events(part)))
    return entries


def end_of(cursor: LmdbCursor, stream: bytes) -> tuple[tuple[int, int], int]:
    """The stream's last cursor, and how many bytes of events it has taken; the start, if it has none."""
    if cursor.prev() if cursor.set_range(stream + b"\x01") else cursor.last():
        key, value = cursor.item()
        if key.startswith(stream + b"\0"):
            return _PLACE.unpack_from(key, len(stream) + 1), _BYTES.unpack_from(value)[0]
    return START, 0


def put(cursor: LmdbCursor, stream: bytes, epoch: int, entries: Sequence[Entry], bytes_before: int) -> None:
    """Add entries behind the stream's end."""
    for seq, packed in entries:
        bytes_before += len(packed)
        cursor.put(stream + b"\0" + _PLACE.pack(epoch, seq), _BYTES.pack(bytes_before) + packed)


def read(cursor: LmdbCursor, stream: bytes, after: Cursor, events_max: int) -> list[tuple[Cursor, Event]]:
    """What lies behind `after`, up to a page or the next hole.

    Raises:
        CursorGone: what follows `after` is not there, or `after` is not in the log.
    """
    found: list[tuple[Cursor, Event]] = []
    bytes_left = PAGE_BYTES_MAX
    for last, packed in _behind(cursor, stream, after):
        pairs = [pair for pair in _unpack(last, packed) if pair[0] > after]
        if found and not successor(found[-1][0], pairs[0][0]):
            break
        found += pairs
        bytes_left -= len(packed)
        if len(found) >= events_max or bytes_left <= 0:
            break
    if not found and after != end_of(cursor, stream)[0]:
        raise CursorGone("The stream's log no longer holds this id.")
    check_contiguous(after, found[:1])
    return found


def held(cursor: LmdbCursor, stream: bytes, first: Cursor, events_max: int) -> list[tuple[Cursor, Event]]:
    """Up to `events_max` events from `first` on, whatever holes there are."""
    pairs: list[tuple[Cursor, Event]] = []
    for last, packed in _behind(cursor, stream, Cursor(first.epoch, first.seq - 1)):
        pairs += (pair for pair in _unpack(last, packed) if pair[0] >= first)
        if len(pairs) >= events_max:
            break
    return pairs


def delete(cursor: LmdbCursor, stream: bytes, through: Cursor | None = None, until: float = 0.0) -> bool:
    """Delete the stream's entries from the oldest on.

    Args:
        through: those that end here or before; by default all.
        until: stop at this time (CLOCK_MONOTONIC); by default none.

    Returns:
        whether nothing is left to delete.
    """
    found = cursor.set_range(stream + b"\0")
    while found and cursor.key().startswith(stream + b"\0"):
        if through is not None and _place(cursor.key()) > through:
            break
        if until and monotonic() > until:
            return False
        # Moves to the next one.
        cursor.delete()
        found = bool(cursor.key())
    return True


def _behind(cursor: LmdbCursor, stream: bytes, after: Cursor) -> Iterator[tuple[Cursor, bytes]]:
    found = cursor.set_range(_key(stream, Cursor(after.epoch, after.seq + 1)))
    while found:
        key, value = cursor.item()
        if not key.startswith(stream + b"\0"):
            return
        yield _place(key), value[_BYTES.size :]
        found = cursor.next()


def _unpack(last: Cursor, packed: bytes) -> Iterator[tuple[Cursor, Event]]:
    events = unpack_events(packed)
    for seq, event in enumerate(events, last.seq - len(events) + 1):
        yield Cursor(last.epoch, seq), event


def _key(stream: bytes, last: Cursor) -> bytes:
    return stream + b"\0" + _PLACE.pack(*last)


def _place(key: bytes) -> Cursor:
    return Cursor(*_PLACE.unpack_from(key, len(key) - _PLACE.size))
