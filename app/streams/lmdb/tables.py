"""The tables of an LMDB log: what each is keyed by, and what it holds.

    records      stream                       the packed `StreamRecord`
    states       stream                       `Row`: who owns it, and whether it has ended; not touched by an append
    events       stream 00 epoch last-seq     see `events`
    keys         idempotency key              stream
    leases       owner                        until when it holds
    running      owner 00 stream              nothing; the owner is empty once the stream was released
    cancels      stream                       nothing: somebody asked for it
    readers      stream                       when somebody was last seen reading it
    ended        time stream                  nothing; in this order streams are forgotten
    documents    key                          version, until when it is kept, body: see `documents`
    expiring     time key                     nothing; in this order documents are forgotten

Times are CLOCK_MONOTONIC: all processes of one boot share it, and nobody sets it.
"""

import struct
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

import lmdb

from app.streams.log import State

if TYPE_CHECKING:
    # Generic in the stubs only.
    LmdbCursor = lmdb.Cursor[bytes]
    Write = lmdb.Transaction[bytes]
else:
    LmdbCursor = lmdb.Cursor
    Write = lmdb.Transaction
Read = Write  # a transaction in which nothing is written

STATES: tuple[State, ...] = ("running", "done", "error", "cancelled")
RUNNING = STATES.index("running")
_ROW = struct.Struct(">IBIdd")
_FENCE_AND_STATE = struct.Struct(">IB")
_TIME = struct.Struct(">d")


class Row(NamedTuple):
    """What changes about a stream, seldom. `released_at` is 0 while it was not."""

    fence: int
    state: State
    takeovers: int
    owned_since: float
    released_at: float
    owner: bytes

    @property
    def claimant(self) -> bytes:
        """Under whom it is found in `running`."""
        return b"" if self.released_at else self.owner


def pack_row(row: Row) -> bytes:
    fence, state, takeovers, owned_since, released_at, owner = row
    return _ROW.pack(fence, STATES.index(state), takeovers, owned_since, released_at) + owner


def unpack_row(packed: bytes) -> Row:
    fence, state, takeovers, owned_since, released_at = _ROW.unpack_from(packed)
    return Row(fence, STATES[state], takeovers, owned_since, released_at, packed[_ROW.size :])


# All of a row that an append has to know: its fence, and whether it is running. Bare, since every append asks.
unpack_fence = _FENCE_AND_STATE.unpack_from


def pack_time(seconds: float) -> bytes:
    """A time that is not negative; sorts by its bytes."""
    return _TIME.pack(seconds)


def unpack_time(packed: bytes) -> float:
    (seconds,) = _TIME.unpack_from(packed)
    return float(seconds)


@dataclass(frozen=True)
class Tables:
    """The handles, which are good for any transaction of the environment that they came from."""

    records: "lmdb._Database"
    states: "lmdb._Database"
    events: "lmdb._Database"
    keys: "lmdb._Database"
    leases: "lmdb._Database"
    running: "lmdb._Database"
    cancels: "lmdb._Database"
    readers: "lmdb._Database"
    ended: "lmdb._Database"
    documents: "lmdb._Database"
    expiring: "lmdb._Database"


TABLES = tuple(field.name for field in fields(Tables))


def open_tables(env: lmdb.Environment) -> Tables:
    """All tables; those that are missing are made."""
    return Tables(**{name: env.open_db(name.encode()) for name in TABLES})


def used_bytes(transaction: Read, tables: Tables) -> int:
    """What the tables take of the map; pages that were freed are not counted, for they are used again."""
    used = 0
    # These are all but everything; each further one would cost every commit a microsecond.
    for table in (tables.events, tables.records, tables.documents):
        stat = transaction.stat(table)
        used += stat["psize"] * (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"])
    return used
