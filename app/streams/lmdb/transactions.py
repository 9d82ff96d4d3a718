"""A store's transactions in one process: when one may begin, and what its failures mean.

They run on the event loop, since they take less time than a switch of threads, and never across an await. Writers take
turns by a lock that is only ever tried (`writer_lock`); readers see the last commit and wait for nobody.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import lmdb
import msgspec
import structlog

from app.errors import LogFull, LogUnavailable
from app.streams.lmdb.room import LmdbRoom
from app.streams.lmdb.store import DAMAGE, LmdbStore, open_store
from app.streams.lmdb.streams import LmdbStreams
from app.streams.lmdb.tables import Read, Write
from app.streams.writer_lock import WriterLock

log = structlog.get_logger(__name__)

# What reading raises where this version did not write. No damage by itself: a later version may have been there.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, struct.error, IndexError)

T = TypeVar("T")


class LmdbTransactions:
    """What the log's verbs stand on; `_open_store` comes first.

    Args:
        path: the folder, on a file system of this machine.
        bytes_max: size of the store, allocated at once.
        lease_seconds: how long a worker counts as alive after each `beat`.
    """

    def __init__(self, path: Path, bytes_max: int, lease_seconds: float) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._lease_seconds = lease_seconds
        self._pid = os.getpid()
        self._store: LmdbStore | None = None
        self._broken = False
        self._lock: WriterLock

    async def _open_store(self) -> None:
        self._store = await open_store(self._path, self._bytes_max)
        self._tables = self._store.tables
        self._streams = LmdbStreams(self._store.tables, self._lease_seconds)
        self._room = LmdbRoom(self._store.env, self._store.tables, self._store.identity.bytes)
        self._broken = False

    async def _leave_if_given_up(self) -> bool:
        """Open the store that took the place of a damaged one; whether it was."""
        if self._store is not None and not self._broken and self._store.is_current:
            return False
        log.warning("stream log was given up, opening its successor", path=str(self._path))
        self._close_store()
        await self._open_store()
        return True

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def _env(self) -> lmdb.Environment:
        if self._store is None:
            raise LogUnavailable("The stream log is closed.")
        if os.getpid() != self._pid:
            # LMDB's reader table and locks go by process: a child that used its parent's would corrupt both.
            raise LogUnavailable("The stream log is closed.", detail="it was opened before this process was forked")
        return self._store.env

    def _read(self, work: Callable[[Read], T]) -> T:
        try:
            with self._env().begin() as transaction:
                return work(transaction)
        except (lmdb.Error, *UNREADABLE) as error:
            raise self._failure(error) from error

    async def _write(self, work: Callable[[Write], T]) -> T:
        async with self._lock:
            return self._transact(work)

    def _transact(self, work: Callable[[Write], T]) -> T:
        """With the writer lock held."""
        try:
            with self._env().begin(write=True) as transaction:
                return work(transaction)
        except (lmdb.Error, *UNREADABLE) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> LogUnavailable:
        if isinstance(error, lmdb.MapFullError):
            return LogFull("The server's stream log is full.", retry_after_seconds=5)
        if isinstance(error, DAMAGE) and self._store is not None:
            self._store.mark_damaged()
        # Whatever else LMDB says may be damage too: opening the store anew looks closer.
        self._broken = self._broken or (isinstance(error, lmdb.Error) and not isinstance(error, lmdb.DiskError))
        return LogUnavailable("The stream log does not answer.", detail=f"{self._path}: {error}")
