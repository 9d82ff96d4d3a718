"""Accounts in a file that all workers of one machine map, beside the stream log and not in it: a full log must not let
everybody in, and an account's change is no business of a stream's commit.

    accounts   key             windows by limit, number of slots, when last used
    slots      key 00 slot     until when it is held
    tickets    digest          until when, value

Times are CLOCK_MONOTONIC in ms, which one boot of the machine shares; the folder is named for the boot. Writers take
turns by a lock that is only ever tried (`app.streams.writer_lock`).
"""

import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, TypeVar

import lmdb
import msgspec

from app.errors import LogUnavailable
from app.limits.account import ACCEPTED, NO_SLOT, Ask, Return, Taken, Window, returned, rolled, share
from app.streams.writer_lock import WriterLock

if TYPE_CHECKING:
    Transaction = lmdb.Transaction[bytes]  # generic in the stubs only
else:
    Transaction = lmdb.Transaction

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# A quarter of a million accounts. The file grows only as far as it is used.
BYTES_MAX = 64 * 1024 * 1024
LOCK_SECONDS_MAX = 0.1
# Twice the longest window: what an account holds has stopped to count.
KEPT_MS = 2 * 3_600_000
TIDY_ENTRIES_MAX = 500
_UNTIL = struct.Struct(">q")

T = TypeVar("T")


class Account(msgspec.Struct, array_like=True, gc=False):
    """One caller. `slots` may count some that have lapsed: they are looked for where it matters."""

    windows: dict[str, Window] = {}
    slots: int = 0
    used_ms: int = 0


_account = msgspec.msgpack.Decoder(Account)
_encode = msgspec.msgpack.Encoder().encode


class LmdbCounters:
    """`Counters` on one machine; `open` comes first.

    Args:
        path: the folder, on a file system of this machine.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._env: Any = None
        # The last key that was looked at in each table, so that all are looked at in the end.
        self._tidied = [b"\0", b"\0", b"\0"]

    async def open(self) -> Self:
        """Open the store of this boot, made where it is missing; those of boots before are deleted.

        Raises:
            LogUnavailable: it cannot be opened; `detail` says why.
        """
        try:
            folder = self._folder()
            self._lock = WriterLock(self._path / "writer.lock", LOCK_SECONDS_MAX)
            async with self._lock:
                # Not flushed: nothing here outlives the machine.
                self._env = lmdb.open(str(folder), map_size=BYTES_MAX, sync=False, metasync=False, max_dbs=3)
                self._accounts, self._slots, self._tickets = map(self._env.open_db, (b"accounts", b"slots", b"tickets"))
        except (OSError, lmdb.Error) as error:
            raise LogUnavailable("The limits cannot be opened.", detail=f"{self._path}: {error}") from error
        return self

    async def take(self, ask: Ask) -> Taken:
        return await self._write(lambda transaction: self._take(transaction, ask))

    async def give_back(self, returns: Sequence[Return]) -> None:
        def work(transaction: Transaction) -> None:
            now_ms = _now_ms()
            for back in returns:
                account = self._account(transaction, back.key)
                if back.slot and transaction.delete(_slot(back.key, back.slot), db=self._slots):
                    account.slots -= 1
                if back.amount and (window := account.windows.get(back.name)) is not None:
                    account.windows[back.name] = returned(rolled(window, back.window_ms, now_ms), back)
                self._keep(transaction, back.key, account, now_ms)

        await self._write(work)

    async def renew(self, slots: Sequence[tuple[str, str]], slot_ms: int) -> None:
        def work(transaction: Transaction) -> None:
            now_ms = _now_ms()
            until = _UNTIL.pack(now_ms + slot_ms)
            for key, slot in slots:
                if transaction.replace(_slot(key, slot), until, db=self._slots) is None:
                    account = self._account(transaction, key)
                    account.slots += 1
                    self._keep(transaction, key, account, now_ms)

        if slots:
            await self._write(work)

    async def keep_ticket(self, digest: str, value: bytes, seconds: float) -> None:
        kept = _UNTIL.pack(_now_ms() + int(seconds * 1000)) + value
        await self._write(lambda transaction: transaction.put(digest.encode(), kept, db=self._tickets))

    async def find_ticket(self, digest: str) -> bytes | None:
        def work(transaction: Transaction) -> bytes | None:
            kept = transaction.get(digest.encode(), db=self._tickets)
            return bytes(kept[_UNTIL.size :]) if kept is not None and _until(kept) > _now_ms() else None

        # As a writer: a reader that is killed would leave its place in the file's table of readers taken.
        return await self._write(work)

    async def tidy(self) -> None:
        await self._write(self._tidy)

    async def aclose(self) -> None:
        env, self._env = self._env, None
        if env is not None:
            env.close()
            self._lock.close()

    def _take(self, transaction: Transaction, ask: Ask) -> Taken:
        now_ms = _now_ms()
        account = self._account(transaction, ask.key)
        windows = [
            rolled(account.windows.get(cost.limit.name, (0, 0, 0)), cost.limit.window_ms, now_ms) for cost in ask.costs
        ]
        shares = tuple(share(window, cost, now_ms) for window, cost in zip(windows, ask.costs, strict=True))
        refused = next((place for place, got in enumerate(shares) if not got.granted), ACCEPTED)
        if ask.slot:
            if self._holds(transaction, ask, now_ms):
                return Taken(ACCEPTED, True, account.slots, shares)
            if 0 < ask.slots_max <= account.slots:
                account.slots = self._count_slots(transaction, ask.key, now_ms)
            if refused == ACCEPTED and 0 < ask.slots_max <= account.slots:
                refused = NO_SLOT
        if refused == ACCEPTED and not ask.look:
            for (number, current, previous), cost, got in zip(windows, ask.costs, shares, strict=True):
                account.windows[cost.limit.name] = (number, current + got.granted, previous)
            if ask.slot:
                held = _UNTIL.pack(now_ms + ask.slot_ms)
                # One that has lapsed and was not looked for is still counted.
                account.slots += transaction.replace(_slot(ask.key, ask.slot), held, db=self._slots) is None
            self._keep(transaction, ask.key, account, now_ms)
        return Taken(refused, False, account.slots, shares)

    def _holds(self, transaction: Transaction, ask: Ask, now_ms: int) -> bool:
        held = transaction.get(_slot(ask.key, ask.slot), db=self._slots)
        return held is not None and _until(held) > now_ms

    def _count_slots(self, transaction: Transaction, key: str, now_ms: int) -> int:
        """Drop the account's slots that have lapsed, and count the others."""
        count, prefix = 0, _slot(key, "")
        cursor = transaction.cursor(self._slots)
        more = cursor.set_range(prefix)
        while more and cursor.key().startswith(prefix):
            if _until(cursor.value()) <= now_ms:
                more = cursor.delete()
            else:
                count += 1
                more = cursor.next()
        return count

    def _tidy(self, transaction: Transaction) -> None:
        now_ms = _now_ms()
        tables: tuple[tuple[Any, Callable[[bytes], bool]], ...] = (
            (self._accounts, lambda packed: _account.decode(packed).used_ms < now_ms - KEPT_MS),
            (self._slots, lambda packed: _until(packed) < now_ms - KEPT_MS),
            (self._tickets, lambda packed: _until(packed) < now_ms),
        )
        for place, (table, is_over) in enumerate(tables):
            cursor = transaction.cursor(table)
            more = cursor.set_range(self._tidied[place]) or cursor.first()
            for _ in range(TIDY_ENTRIES_MAX):
                if not more:
                    break
                more = cursor.delete() if is_over(cursor.value()) else cursor.next()
            self._tidied[place] = cursor.key() if more else b"\0"

    def _folder(self) -> Path:
        boot = BOOT_ID.read_text().strip()
        folder = self._path / boot
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for other in self._path.iterdir():
            if other.is_dir() and other.name != boot:
                shutil.rmtree(other, ignore_errors=True)
        return folder

    def _account(self, transaction: Transaction, key: str) -> Account:
        packed = transaction.get(key.encode(), db=self._accounts)
        return Account(windows={}) if packed is None else _account.decode(packed)

    def _keep(self, transaction: Transaction, key: str, account: Account, now_ms: int) -> None:
        account.used_ms = now_ms
        transaction.put(key.encode(), _encode(account), db=self._accounts)

    async def _write(self, work: Callable[[Transaction], T]) -> T:
        if self._env is None:
            raise LogUnavailable("The limits are closed.")
        async with self._lock:
            try:
                with self._env.begin(write=True) as transaction:
                    return work(transaction)
            except (lmdb.Error, msgspec.DecodeError, struct.error) as error:
                raise LogUnavailable("The limits do not answer.", detail=f"{self._path}: {error}") from error


def _until(packed: bytes) -> int:
    (until_ms,) = _UNTIL.unpack_from(packed)
    return int(until_ms)


def _slot(key: str, slot: str) -> bytes:
    return key.encode() + b"\0" + slot.encode()


def _now_ms() -> int:
    return int(monotonic() * 1000)
