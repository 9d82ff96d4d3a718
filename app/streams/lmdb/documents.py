"""Documents on LMDB: kept under their keys, and forgotten in the order of `expiring`."""

import struct
from collections.abc import Sequence
from time import monotonic

from app.errors import LogFull
from app.streams.documents import Document, next_version
from app.streams.lmdb.tables import Read, Write, pack_time, unpack_time
from app.streams.lmdb.transactions import LmdbTransactions

_HEAD = struct.Struct(">Qd")
_TIME_BYTES = len(pack_time(0.0))


class LmdbDocuments(LmdbTransactions):
    """`Documents`, on one machine."""

    async def get_document(self, key: str) -> Document | None:
        return self._read(lambda transaction: self._document(transaction, key))

    async def put_document(self, key: str, body: bytes, version: int, ttl_seconds: float) -> int | None:
        def work(transaction: Write) -> int | None:
            known = self._document(transaction, key)
            if version != (0 if known is None else known.version):
                return None
            if not self._room.has_for_stream(transaction):
                raise LogFull("The server's stream log is full.", retry_after_seconds=5)
            self._drop(transaction, key)
            expires_at = monotonic() + ttl_seconds
            made = next_version(version, int(monotonic() * 1e6))
            transaction.put(key.encode(), _HEAD.pack(made, expires_at) + body, db=self._tables.documents)
            transaction.put(pack_time(expires_at) + key.encode(), b"", db=self._tables.expiring)
            return made

        return await self._write(work)

    async def drop_document(self, key: str) -> None:
        await self._write(lambda transaction: self._drop(transaction, key))

    async def document_versions(self, keys: Sequence[str]) -> list[int]:
        def work(transaction: Read) -> list[int]:
            return [0 if (found := self._document(transaction, key)) is None else found.version for key in keys]

        return self._read(work)

    def _forget_documents(self, transaction: Write, until: float) -> bool:
        """Delete those whose time is over, working no longer than `until`; whether all of them are gone."""
        cursor = transaction.cursor(self._tables.expiring)
        while cursor.first() and unpack_time(cursor.key()) < monotonic():
            if monotonic() > until:
                return False
            key = cursor.key()[_TIME_BYTES:]
            cursor.delete()
            transaction.delete(key, db=self._tables.documents)
        return True

    def _drop(self, transaction: Write, key: str) -> None:
        packed = transaction.get(key.encode(), db=self._tables.documents)
        if packed is not None:
            expires_at = _HEAD.unpack_from(packed)[1]
            transaction.delete(pack_time(expires_at) + key.encode(), db=self._tables.expiring)
            transaction.delete(key.encode(), db=self._tables.documents)

    def _document(self, transaction: Read, key: str) -> Document | None:
        packed = transaction.get(key.encode(), db=self._tables.documents)
        if packed is None:
            return None
        version, expires_at = _HEAD.unpack_from(packed)
        return None if expires_at <= monotonic() else Document(version, bytes(packed[_HEAD.size :]))
