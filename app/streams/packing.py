"""Events and records as the bytes that backends store.

Maps with named fields: what an older version wrote stays readable as long as fields are only ever added, with defaults.
Golden bytes in the tests hold us to it.
"""

from collections.abc import Sequence

import msgspec

from app.events import Event
from app.streams.log import StreamRecord

_encoder = msgspec.msgpack.Encoder()
_events = msgspec.msgpack.Decoder(list[Event])
_record = msgspec.msgpack.Decoder(StreamRecord)


def pack_events(events: Sequence[Event]) -> bytes:
    """What one append stores."""
    return _encoder.encode(events)


def unpack_events(packed: bytes | memoryview) -> list[Event]:
    """The events of one append.

    Raises:
        msgspec.DecodeError: these are not bytes that `pack_events` ever made.
    """
    return _events.decode(packed)


def pack_record(record: StreamRecord) -> bytes:
    """What `create` stores."""
    return _encoder.encode(record)


def unpack_record(packed: bytes | memoryview) -> StreamRecord:
    """The record of one stream.

    Raises:
        msgspec.DecodeError: these are not bytes that `pack_record` ever made.
    """
    return _record.decode(packed)
