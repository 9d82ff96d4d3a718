"""Events and records as the bytes that backends store.

Maps with named fields: what an older version wrote stays readable as long as fields are only ever added, with defaults,
and what a later version added is passed over. Golden bytes in the tests hold us to it.
"""

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from app.errors import LogUnavailable
from app.events import Event
from app.streams.log import StreamRecord

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
_events = msgspec.msgpack.Decoder(list[Event])
_record = msgspec.msgpack.Decoder(StreamRecord)


class Unreadable(LogUnavailable):
    """A stream's bytes say what this version does not know: a later one wrote them, beside it in a rolling upgrade.

    It is one stream's trouble, and the log is not away. Whoever reads it is sent elsewhere, and nobody waits here for
    an answer that cannot change.
    """


def pack_events(events: Sequence[Event]) -> bytes:
    """What one append stores."""
    return _encoder.encode(events)


def unpack_events(packed: bytes | memoryview) -> list[Event]:
    """The events of one append.

    Raises:
        Unreadable: these are not bytes that `pack_events` of this version or an earlier one ever made.
    """
    return _unpacked(_events, packed)


def pack_record(record: StreamRecord) -> bytes:
    """What `create` stores."""
    return _encoder.encode(record)


def unpack_record(packed: bytes | memoryview) -> StreamRecord:
    """The record of one stream.

    Raises:
        Unreadable: these are not bytes that `pack_record` of this version or an earlier one ever made.
    """
    return _unpacked(_record, packed)


def _unpacked(decoder: "msgspec.msgpack.Decoder[T]", packed: bytes | memoryview) -> T:
    try:
        return decoder.decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(
            "This server cannot read the stream.", detail=f"written by a later version? {error}", retry_after_seconds=1
        ) from error
