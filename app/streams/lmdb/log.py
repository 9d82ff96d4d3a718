"""The stream log in a file that all workers of one machine map: it survives `kill -9` of any of them, and no reboot.

What a transaction does is in `streams`, `events` and `commit`; when one may begin, and what its failures mean, in
`transactions`. This module says what a verb is made of, and who hears of what it wrote.
"""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Self

from app.errors import LogFull, LogUnavailable, NotFound
from app.events import Event
from app.streams.lmdb import events as lmdb_events
from app.streams.lmdb.commit import Ends, LmdbCommit
from app.streams.lmdb.documents import LmdbDocuments
from app.streams.lmdb.events import Entry
from app.streams.lmdb.leases import LmdbLeases
from app.streams.lmdb.room import LmdbRoom
from app.streams.lmdb.tables import Read, Write
from app.streams.lmdb.wakeups import Wakeups
from app.streams.log import LEASE_SECONDS, Append, AppendResult, Cursor, Fill, StreamRecord, StreamState
from app.streams.waiters import Bells, Waiters
from app.streams.writer_lock import WriterLock

# How soon a reader sees what another process wrote if the datagram that says so is lost.
POLL_SECONDS = 0.25
# A backlog is written in transactions of about this many events, a few milliseconds each; an ordinary commit is one.
TRANSACTION_EVENTS_MAX = 2000
# Deleting holds the event loop and the other writers for this long at a time, and goes on for this long in one call.
FORGET_TRANSACTION_SECONDS = 0.002
FORGET_SECONDS = 0.5

# Streams whose end is remembered; those that are over are forgotten with the rest.
ENDS_MAX = 4096


class LmdbLog(LmdbLeases, LmdbDocuments):
    """`StreamLog`, `Leases` and `Documents` on one machine; opened in the process that uses it.

    Args:
        path: the folder, on a file system of this machine.
        bytes_max: size of the store, allocated at once.
        stream_bytes_max: most bytes of events that one stream holds.
        ttl_seconds: how long a stream is kept after its end.
        lease_seconds: how long a worker counts as alive after each `beat`.
    """

    def __init__(
        self,
        path: Path,
        bytes_max: int = 1024 * 1024 * 1024,
        stream_bytes_max: int = 16 * 1024 * 1024,
        ttl_seconds: float = 900.0,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        super().__init__(path, bytes_max, lease_seconds)
        self._stream_bytes_max = stream_bytes_max
        self._ttl_seconds = ttl_seconds
        self._closed = True
        self._waiters = Waiters()
        self._cancels = Bells()  # by owner
        # The end of each stream that somebody waits for, as it was when last looked at.
        self._seen: dict[str, tuple[int, int] | None] = {}
        self._poll_timer: asyncio.TimerHandle | None = None
        self._written: Ends = {}

    async def open(self) -> Self:
        """Open the log in the folder, begun anew if this boot has none there that can be used.

        Raises:
            LogUnavailable: it can neither be opened nor made; `detail` says why.
        """
        await self._open_store()
        try:
            self._lock = WriterLock(self._path / "writer.lock")
            self._wakeups = Wakeups(self._path / "wakeups", self._waiters.wake, self._cancels.ring)
        except OSError as error:
            self._close_store()
            detail = f"{self._path}: {error.strerror}"
            raise LogUnavailable("The stream log cannot be opened.", detail=detail) from error
        self._closed = False
        return self

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._wakeups.close()
        self._lock.close()
        self._close_store()
        if self._poll_timer is not None:
            self._poll_timer.cancel()
            self._poll_timer = None
        self._waiters.wake_all()
        self._cancels.ring_all()

    async def create(self, record: StreamRecord, owner: str) -> StreamRecord:
        def work(transaction: Write) -> StreamRecord:
            known = self._streams.known(transaction, record)
            if known is not None:
                return known
            if not self._room.has_for_stream(transaction):
                raise LogFull("The server's stream log is full.", retry_after_seconds=5)
            self._streams.add(transaction, record, owner)
            return record

        return await self._write(work)

    async def known(self, record: StreamRecord) -> StreamRecord | None:
        return self._read(lambda transaction: self._streams.known(transaction, record))

    async def append(self, batch: Sequence[Append]) -> list[AppendResult]:
        results: list[AppendResult] = []
        for part in _parts(batch):
            if results:
                await asyncio.sleep(0)
            entries = _pack(part)
            async with self._lock:
                taken = self._commit(part, entries)
            self._tell(part, taken)
            results += taken
        return results

    def append_nowait(self, batch: Sequence[Append]) -> list[AppendResult] | None:
        events = 0
        for append in batch:
            events += len(append.events)
        if events > TRANSACTION_EVENTS_MAX:
            return None
        entries = _pack(batch)
        try:
            if not self._lock.acquire_nowait():
                return None
            try:
                results = self._commit(batch, entries)
            finally:
                self._lock.release()
        except LogUnavailable:
            return None  # `append` meets it again, and says so
        self._tell(batch, results)
        return results

    def _commit(self, batch: Sequence[Append], entries: Sequence[Sequence[Entry]]) -> list[AppendResult]:
        """With the writer lock held."""

        def work(transaction: Write, room: LmdbRoom | None = self._room) -> tuple[list[AppendResult], Ends]:
            commit = LmdbCommit(transaction, self._tables, self._streams, room, self._stream_bytes_max, self._written)
            return list(map(commit.append, batch, entries)), commit.ends

        try:
            results, ends = self._transact(work)
        except LogFull:
            # A reader that stands still keeps freed pages from being used again, so that less room is left than it
            # seems: terminal events alone may still fit.
            results, ends = self._transact(lambda transaction: work(transaction, room=None))
        if len(self._written) > ENDS_MAX:
            self._written.clear()
        self._written |= ends
        return results

    def _tell(self, batch: Sequence[Append], results: Sequence[AppendResult]) -> None:
        """Wake the readers; without the lock, which others wait for."""
        if not self._waiters.stream_ids and not self._wakeups.wanted:
            return  # nearly always: readers are where the producer is, and follow its tail
        news = [append.stream_id for append, result in zip(batch, results, strict=True) if result == "ok"]
        for stream_id in news:
            self._waiters.wake(stream_id)
        self._wakeups.wake(news)

    async def read(self, stream_id: str, after: Cursor, events_max: int) -> list[tuple[Cursor, Event]]:
        def work(transaction: Read) -> list[tuple[Cursor, Event]]:
            stream = stream_id.encode()
            if transaction.get(stream, db=self._tables.states) is None:
                raise NotFound("There is no such stream, or no longer.")
            return lmdb_events.read(transaction.cursor(self._tables.events), stream, after, events_max)

        return self._read(work)

    async def describe(self, stream_id: str) -> tuple[StreamRecord, StreamState] | None:
        return self._read(lambda transaction: self._streams.describe(transaction, stream_id))

    async def wait(self, stream_id: str, after: Cursor, seconds: float) -> None:
        (end,) = self._read(lambda transaction: self._ends(transaction, [stream_id]))
        if end is not None and end > after:
            return
        self._seen[stream_id] = end
        self._wakeups.announce([stream_id])
        if self._poll_timer is None:
            self._poll_timer = asyncio.get_running_loop().call_later(POLL_SECONDS, self._poll)
        await self._waiters.wait(stream_id, seconds)

    def _poll(self) -> None:
        self._poll_timer = None
        waiting = list(self._waiters.stream_ids)
        self._seen = {stream_id: self._seen.get(stream_id) for stream_id in waiting}
        if not waiting or self._store is None:
            return
        self._wakeups.announce(waiting)
        try:
            ends = self._read(lambda transaction: self._ends(transaction, waiting))
        except LogUnavailable:
            self._waiters.wake_all()  # they hear of it when they read
            return
        for stream_id, end in zip(waiting, ends, strict=True):
            if end != self._seen[stream_id]:
                self._waiters.wake(stream_id)
        self._poll_timer = asyncio.get_running_loop().call_later(POLL_SECONDS, self._poll)

    async def request_cancel(self, stream_id: str) -> None:
        owner = await self._write(lambda transaction: self._streams.request_cancel(transaction, stream_id))
        if owner is not None:
            self._cancels.ring(owner)
            self._wakeups.tell_to_cancel(owner)

    async def wait_for_cancels(self, owner: str, seconds: float) -> None:
        self._env()
        await self._cancels.wait(owner, seconds)

    async def reap(self) -> None:
        """Forget what ended more than `ttl_seconds` ago, and what dead processes left; leave a store that was given
        up for the one that took its place."""
        if self._closed:
            raise LogUnavailable("The stream log is closed.")
        if await self._leave_if_given_up():
            self._waiters.wake_all()
        self._wakeups.forget()
        env = self._env()

        def tidy(transaction: Write) -> None:
            self._streams.forget_leases(transaction)
            env.reader_check()

        await self._write(tidy)
        ended_before = monotonic() - self._ttl_seconds
        stop_at = monotonic() + FORGET_SECONDS

        def forget(transaction: Write) -> bool:
            until = monotonic() + FORGET_TRANSACTION_SECONDS
            forgotten = self._streams.forget(transaction, ended_before, until)
            return forgotten and self._forget_documents(transaction, until)

        while not await self._write(forget) and monotonic() < stop_at:  # noqa: ASYNC110 - others get their turn
            await asyncio.sleep(0)

    async def fill(self) -> Fill:
        return self._read(self._room.fill)

    async def trim(self, stream_id: str, through: Cursor) -> None:
        """Drop the entries that end at `through` or before, except the last one; whoever still needs them gets
        `CursorGone`."""

        def work(transaction: Write) -> None:
            cursor = transaction.cursor(self._tables.events)
            (epoch, seq), _ = lmdb_events.end_of(cursor, stream_id.encode())
            lmdb_events.delete(cursor, stream_id.encode(), min(through, Cursor(epoch, seq - 1)))

        await self._write(work)

    def _close_store(self) -> None:
        self._written.clear()
        super()._close_store()

    def _ends(self, transaction: Read, stream_ids: Sequence[str]) -> list[tuple[int, int] | None]:
        """Where each stream ends; None for what there is not."""
        cursor = transaction.cursor(self._tables.events)
        ends: list[tuple[int, int] | None] = []
        for stream_id in stream_ids:
            stream = stream_id.encode()
            known = transaction.get(stream, db=self._tables.states) is not None
            ends.append(lmdb_events.end_of(cursor, stream)[0] if known else None)
        return ends


def _pack(batch: Sequence[Append]) -> list[list[Entry]]:
    """Before the lock is taken: nobody else has to wait for it."""
    return [lmdb_events.pack(append) for append in batch]


def _parts(batch: Sequence[Append]) -> Iterator[Sequence[Append]]:
    part: list[Append] = []
    events = 0
    for append in batch:
        if events and events + len(append.events) > TRANSACTION_EVENTS_MAX:
            yield part
            part, events = [], 0
        part.append(append)
        events += len(append.events)
    if part:
        yield part
