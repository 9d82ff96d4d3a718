"""The tables of streams and owners, and what one transaction does with them. Knows no lock and no event loop."""

from collections.abc import Sequence
from time import monotonic

import msgspec

from app.streams.lmdb import events as lmdb_events
from app.streams.lmdb.tables import LmdbCursor, Read, Row, Tables, Write, pack_row, pack_time, unpack_row, unpack_time
from app.streams.log import Cursor, State, StreamRecord, StreamState
from app.streams.packing import pack_record, unpack_record

# A worker's name is its own for one incarnation: its lease is forgotten this long after it ended.
LEASE_KEPT_SECONDS = 3600.0


class _Keyed(msgspec.Struct):
    """The one field of a record without which a stream cannot be deleted; whatever else a later version made of it."""

    idempotency: str = ""


_keyed = msgspec.msgpack.Decoder(_Keyed)


class LmdbStreams:
    """One store's streams.

    Args:
        lease_seconds: how long a worker counts as alive after each beat, and a reader as present.
    """

    def __init__(self, tables: Tables, lease_seconds: float) -> None:
        self._tables = tables
        self._lease_seconds = lease_seconds

    def known(self, transaction: Read, record: StreamRecord) -> StreamRecord | None:
        """The stream that `record`'s key made before, or that has its id."""
        stream = record.stream_id.encode()
        if record.idempotency:
            stream = transaction.get(record.idempotency.encode(), db=self._tables.keys) or stream
        packed = transaction.get(stream, db=self._tables.records)
        return None if packed is None else unpack_record(packed)

    def add(self, transaction: Write, record: StreamRecord, owner: str) -> None:
        stream = record.stream_id.encode()
        row = Row(1, "running", 0, monotonic(), 0.0, _name(owner))
        transaction.put(stream, pack_record(record), db=self._tables.records)
        transaction.put(stream, pack_row(row), db=self._tables.states)
        transaction.put(_claim(row, stream), b"", db=self._tables.running)
        if record.idempotency:
            transaction.put(record.idempotency.encode(), stream, db=self._tables.keys)

    def describe(self, transaction: Read, stream_id: str) -> tuple[StreamRecord, StreamState] | None:
        stream = stream_id.encode()
        packed = transaction.get(stream, db=self._tables.records)
        row = self._row(transaction, stream)
        if packed is None or row is None:
            return None
        now = monotonic()
        alive_until = self._alive_until(transaction, row)
        seen_at = transaction.get(stream, db=self._tables.readers)
        return unpack_record(packed), StreamState(
            state=row.state,
            owner=row.owner.decode(),
            owner_alive=alive_until > now,
            orphaned_seconds=max(0.0, now - alive_until),
            fence=row.fence,
            takeovers=row.takeovers,
            last=Cursor(*lmdb_events.end_of(transaction.cursor(self._tables.events), stream)[0]),
            cancel_requested=transaction.get(stream, db=self._tables.cancels) is not None,
            readers_seen=seen_at is not None and now - unpack_time(seen_at) < self._lease_seconds,
        )

    def close(self, transaction: Write, stream: bytes, state: State) -> None:
        """The stream has ended."""
        row = self._row(transaction, stream)
        assert row is not None
        transaction.put(stream, pack_row(row._replace(state=state)), db=self._tables.states)
        transaction.delete(_claim(row, stream), db=self._tables.running)
        transaction.delete(stream, db=self._tables.cancels)
        transaction.put(pack_time(monotonic()) + stream, b"", db=self._tables.ended)

    def beat(self, transaction: Write, owner: str) -> None:
        transaction.put(_name(owner), pack_time(monotonic() + self._lease_seconds), db=self._tables.leases)

    def expire(self, transaction: Write, owner: str) -> None:
        now = monotonic()
        lease = transaction.get(_name(owner), db=self._tables.leases)
        over = now if lease is None else min(now, unpack_time(lease))
        transaction.put(_name(owner), pack_time(over), db=self._tables.leases)

    def claim(self, transaction: Write, stream_id: str, owner: str, fence: int) -> int | None:
        stream = stream_id.encode()
        row = self._row(transaction, stream)
        if row is None or row.fence != fence or row.state != "running":
            return None
        if self._alive_until(transaction, row) > monotonic():
            return None
        # Whoever let go of it lives: only deaths are counted.
        takeovers = row.takeovers + (not row.released_at)
        taken = Row(fence + 1, "running", takeovers, monotonic(), 0.0, _name(owner))
        self._replace(transaction, stream, row, taken)
        return taken.fence

    def release(self, transaction: Write, stream_id: str, fence: int) -> None:
        stream = stream_id.encode()
        row = self._row(transaction, stream)
        if row is not None and row.fence == fence and row.state == "running" and not row.released_at:
            self._replace(transaction, stream, row, row._replace(released_at=monotonic()))

    def orphans(self, transaction: Read) -> list[str]:
        """Goes from owner to owner, past the streams of those who are alive."""
        found: list[str] = []
        cursor = transaction.cursor(self._tables.running)
        more = cursor.first()
        while more:
            owner, _, stream = cursor.key().partition(b"\0")
            if owner and self._lease_until(transaction, owner) > monotonic():
                more = cursor.set_range(owner + b"\x01")
            else:
                found.append(stream.decode())
                more = cursor.next()
        return found

    def request_cancel(self, transaction: Write, stream_id: str) -> str | None:
        """Note that somebody asked for it; returns who is to hear of it."""
        row = self._row(transaction, stream_id.encode())
        if row is None or row.state != "running":
            return None
        transaction.put(stream_id.encode(), b"", db=self._tables.cancels)
        return row.owner.decode()

    def cancel_requests(self, transaction: Read, owner: str) -> list[str]:
        found = []
        for stream, _ in transaction.cursor(self._tables.cancels):
            row = self._row(transaction, stream)
            if row is not None and row.owner == _name(owner):
                found.append(stream.decode())
        return found

    def touch_readers(self, transaction: Write, stream_ids: Sequence[str]) -> None:
        for stream_id in stream_ids:
            stream = stream_id.encode()
            if transaction.get(stream, db=self._tables.states) is not None:
                transaction.put(stream, pack_time(monotonic()), db=self._tables.readers)

    def forget(self, transaction: Write, ended_before: float, until: float) -> bool:
        """Delete what ended before that time, working no longer than `until`; whether all of it is gone.

        A stream is unknown before its events are deleted, and its place in `ended` is the last that goes.
        """
        cursor = transaction.cursor(self._tables.ended)
        while cursor.first() and unpack_time(cursor.key()) < ended_before:
            stream = cursor.key()[len(pack_time(0.0)) :]
            self._forget_rows(transaction, stream)
            if not lmdb_events.delete(transaction.cursor(self._tables.events), stream, until=until):
                return False
            cursor.first()
            cursor.delete()
        return True

    def forget_leases(self, transaction: Write) -> None:
        """Delete the leases of workers that are long gone and have no streams left."""
        running = transaction.cursor(self._tables.running)
        for owner, lease in list(transaction.cursor(self._tables.leases)):
            if unpack_time(lease) < monotonic() - LEASE_KEPT_SECONDS and not _has_prefix(running, owner + b"\0"):
                transaction.delete(owner, db=self._tables.leases)

    def _forget_rows(self, transaction: Write, stream: bytes) -> None:
        packed = transaction.get(stream, db=self._tables.records)
        if packed is not None:
            key = _key_of(packed)
            if key and transaction.get(key, db=self._tables.keys) == stream:
                transaction.delete(key, db=self._tables.keys)
        for table in (self._tables.records, self._tables.states, self._tables.readers):
            transaction.delete(stream, db=table)

    def _row(self, transaction: Read, stream: bytes) -> Row | None:
        packed = transaction.get(stream, db=self._tables.states)
        return None if packed is None else unpack_row(packed)

    def _replace(self, transaction: Write, stream: bytes, old: Row, new: Row) -> None:
        transaction.delete(_claim(old, stream), db=self._tables.running)
        transaction.put(_claim(new, stream), b"", db=self._tables.running)
        transaction.put(stream, pack_row(new), db=self._tables.states)

    def _alive_until(self, transaction: Read, row: Row) -> float:
        """When the owner stopped, or will stop, to count as alive. One that never took a lease never did."""
        return row.released_at or max(self._lease_until(transaction, row.owner), row.owned_since)

    def _lease_until(self, transaction: Read, owner: bytes) -> float:
        lease = transaction.get(owner, db=self._tables.leases)
        return 0.0 if lease is None else unpack_time(lease)


def _name(owner: str) -> bytes:
    name = owner.encode()
    if not name or b"\0" in name or len(name) > 400:
        raise ValueError(f"{owner!r} is no name for a worker")
    return name


def _key_of(packed_record: bytes) -> bytes:
    """A record's idempotency key; none, if it cannot be read: deleting must go on."""
    try:
        return _keyed.decode(packed_record).idempotency.encode()
    except msgspec.DecodeError:
        return b""


def _claim(row: Row, stream: bytes) -> bytes:
    """The key in `running`."""
    return row.claimant + b"\0" + stream


def _has_prefix(cursor: LmdbCursor, prefix: bytes) -> bool:
    return cursor.set_range(prefix) and cursor.key().startswith(prefix)
