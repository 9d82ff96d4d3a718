"""What one append is in Redis: an entry `<epoch>-<seq of its last event>`, with its packed events as the value."""

from app.events import Event
from app.streams.log import Cursor
from app.streams.packing import unpack_events


def entry_cursor(place: bytes) -> Cursor:
    """The last event's cursor."""
    epoch, _, seq = place.partition(b"-")
    return Cursor(int(epoch), int(seq))


def decode_entry(place: bytes, packed: bytes) -> list[tuple[Cursor, Event]]:
    """The events under their cursors."""
    epoch, last = entry_cursor(place)
    events = unpack_events(packed)
    return [(Cursor(epoch, seq), event) for seq, event in enumerate(events, last - len(events) + 1)]
