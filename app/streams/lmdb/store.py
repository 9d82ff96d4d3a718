"""The folder of an LMDB log: which store in it is the current one, making it, opening it, and giving up a damaged one.

    writer.lock             whoever writes, or changes anything in this folder, holds it
    v1.json                 the current store of schema 1, and the boot that it belongs to
    v1-<random>/            a store: LMDB's two files; `in_use`, which each process that has it open locks (shared);
                            `damaged`, once somebody found it so
    wakeups/                one socket for each process

A store is never changed under those who use it. What belongs to another boot, to another schema, or is damaged is
left alone, a new store is begun beside it, and it is deleted once nobody has it open.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from pathlib import Path

import lmdb
import msgspec
import structlog

from app.errors import LogUnavailable
from app.streams.lmdb.tables import TABLES, open_tables
from app.streams.writer_lock import WriterLock

log = structlog.get_logger(__name__)

# Raised whenever what is stored cannot be read by the version before.
SCHEMA = 1
# Below this LMDB's own pages, and what a commit frees and cannot use again at once, are most of the store.
BYTES_MIN = 4 * 1024 * 1024
# Allocating a store takes milliseconds where the file system can, and seconds where it has to write every block.
OPEN_SECONDS_MAX = 30.0
# A slot of 64 bytes for each process that reads.
READERS_MAX = 1024
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# BadTxnError: what a transaction says once a step of it has met damage, also one whose error LMDB kept to itself.
# Opened anew such a store looks sound, and the log would be away for ever.
DAMAGE = (
    *(lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.VersionMismatchError),
    lmdb.BadTxnError,
)


class Identity(msgspec.Struct, frozen=True):
    """The contents of `v<schema>.json`.

    Args:
        boot: the boot whose clocks and page cache the store goes by: it is not flushed to disk, so what a reboot left
            of it is of no use.
        folder: the store's name.
        bytes: its size, all of it allocated where the file system can.
        allocated: whether it is; a map with holes in it kills whoever writes into one when the disk is full.
    """

    boot: str
    folder: str
    bytes: int
    allocated: bool


class LmdbStore:
    """An open store; made by `open_store`, once in a process."""

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = path
        self.identity = identity
        self._folder = path / identity.folder
        if (self._folder / "data.mdb").stat().st_size < identity.bytes:
            raise lmdb.CorruptedError("the file is shorter than it was made")
        self._in_use = os.open(self._folder / "in_use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._in_use, fcntl.LOCK_SH)
        try:
            self.env = lmdb.open(
                str(self._folder),
                map_size=identity.bytes,
                writemap=identity.allocated,
                # Not flushed: the page cache outlives any process, and nothing here outlives the machine.
                sync=False,
                metasync=False,
                max_dbs=len(TABLES),
                max_readers=READERS_MAX,
                # The one read transaction at a time keeps its slot: taking one is under a mutex that blocks.
                max_spare_txns=1,
                readahead=False,
                lib_version=0,
            )
        except BaseException:
            os.close(self._in_use)
            raise
        try:
            self.tables = open_tables(self.env)
            with self.env.begin():
                pass  # takes that slot now, while we hold the writer lock and nobody else is at the mutex
            self.env.reader_check()
        except BaseException:
            self.close()
            raise

    @property
    def is_current(self) -> bool:
        """Whether a process that opened the folder now would get this store."""
        return _read_identity(self.path) == self.identity and not self._damaged.exists()

    def mark_damaged(self) -> None:
        """Have everybody leave this store for a new one."""
        with contextlib.suppress(OSError):
            self._damaged.touch()

    def close(self) -> None:
        """Leave the store to the others."""
        self.env.close()
        os.close(self._in_use)

    @property
    def _damaged(self) -> Path:
        return self._folder / "damaged"


async def open_store(path: Path, bytes_max: int) -> LmdbStore:
    """The current store in the folder `path`; a new one where there is none that can be used.

    Raises:
        LogUnavailable: it can neither be opened nor made; `detail` says why.
    """
    if bytes_max < BYTES_MIN:
        raise _unusable(path, f"its size of {bytes_max} bytes is less than {BYTES_MIN}")
    try:
        lock = _folder_lock(path)
        try:
            async with lock:
                return _open_current(path, bytes_max) or _begin(path, bytes_max)
        finally:
            lock.close()
    except OSError as error:
        raise _unusable(path, _reason(error, bytes_max)) from error
    except lmdb.Error as error:
        raise _unusable(path, str(error)) from error


def _folder_lock(path: Path) -> WriterLock:
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return WriterLock(path / "writer.lock", OPEN_SECONDS_MAX)


def _open_current(path: Path, bytes_max: int) -> LmdbStore | None:
    identity = _read_identity(path)
    if identity is None:
        return None
    if identity.boot != _boot_id():
        log.info("stream log begins anew: the machine was started again", path=str(path))
        return None
    if (path / identity.folder / "damaged").exists():
        return None
    try:
        identity = _grow(path, identity, bytes_max)
        return LmdbStore(path, identity)
    except (*DAMAGE, FileNotFoundError) as error:
        log.error("stream log begins anew: the store is damaged", path=str(path), detail=str(error))
        return None


def _grow(path: Path, identity: Identity, bytes_max: int) -> Identity:
    """Follow the setting upwards while nobody else has the store open; it cannot change under those who have."""
    if bytes_max == identity.bytes:
        return identity
    if bytes_max < identity.bytes or _is_used(path / identity.folder):
        log.warning("stream log keeps its size until it begins anew", bytes=identity.bytes, wanted=bytes_max)
        return identity
    allocated = _allocate(path / identity.folder / "data.mdb", bytes_max)
    identity = Identity(identity.boot, identity.folder, bytes_max, allocated)
    _write_identity(path, identity)
    return identity


def _begin(path: Path, bytes_max: int) -> LmdbStore:
    """Make a store and have it be the current one."""
    _sweep(path)
    folder = path / f"v{SCHEMA}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    try:
        # Begun without the writable map, in which a first page without a block could not be written.
        lmdb.open(str(folder), map_size=bytes_max, lib_version=0).close()
        allocated = _allocate(folder / "data.mdb", bytes_max)
        store = LmdbStore(path, Identity(_boot_id(), folder.name, bytes_max, allocated))
        try:
            _write_identity(path, store.identity)
        except BaseException:
            store.close()
            raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    log.info("stream log begun", path=str(path), bytes=bytes_max, allocated=allocated)
    return store


def _sweep(path: Path) -> None:
    """Delete the stores that nobody has open, of any schema, except the current ones of others'."""
    current = {identity.folder for file in path.glob("v*.json") if (identity := _read_identity(path, file)) is not None}
    ours = _read_identity(path)
    if ours is not None:
        current.discard(ours.folder)
    for folder in path.glob("v*-*/"):
        if folder.name not in current and not _is_used(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_used(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / "in_use", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _allocate(file: Path, size: int) -> bool:
    """Give `file` all its blocks now; false where the file system has no way to."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(descriptor, size)
        return False
    finally:
        os.close(descriptor)
    return True


def _read_identity(path: Path, file: Path | None = None) -> Identity | None:
    try:
        return msgspec.json.decode((file or path / f"v{SCHEMA}.json").read_bytes(), type=Identity)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        log.error("stream log begins anew: it is not known which store is the current one", path=str(path))
        return None


def _write_identity(path: Path, identity: Identity) -> None:
    new = path / f"v{SCHEMA}.json.new"
    new.write_bytes(msgspec.json.encode(identity))
    new.rename(path / f"v{SCHEMA}.json")


def _boot_id() -> str:
    return BOOT_ID.read_text().strip()


def _reason(error: OSError, bytes_max: int) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"there is no room for its {bytes_max} bytes"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return "it is not a folder"
    return error.strerror or str(error)


def _unusable(path: Path, reason: str) -> LogUnavailable:
    return LogUnavailable("The stream log cannot be opened.", detail=f"{path}: {reason}")
