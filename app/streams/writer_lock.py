"""The lock that writers of one store take in turn, whatever becomes of the one who has it.

LMDB's own writer mutex blocks the thread that wants it: a worker that was stopped while it held it would hold the event
loops of all the others. So nobody comes to that mutex who does not hold this lock, and this one is only ever tried.
"""

import asyncio
import contextlib
import fcntl
import os
import random
import weakref
from pathlib import Path
from time import monotonic

from app.errors import LogUnavailable

# A commit takes 0.1 to 1 ms: whoever is next should look at about that pace, and not all at the same moment.
RETRY_SECONDS = (0.0002, 0.001)


class WriterLock:
    """`async with` it, and do not await inside: what runs in between holds every other writer of the store.

    It is the kernel's (flock), so it ends with the process that holds it.

    Args:
        path: the file; made where it is missing.
        seconds_max: how long a writer tries before the store counts as unavailable.
    """

    def __init__(self, path: Path, seconds_max: float = 1.0) -> None:
        self._seconds_max = seconds_max
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _locks.add(self)

    async def __aenter__(self) -> None:
        if not self.acquire_nowait():
            await self._retry()

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def acquire_nowait(self) -> bool:
        """Take the lock if nobody has it; to be followed by `release`.

        Raises:
            LogUnavailable: it was closed.
        """
        if self._descriptor < 0:
            raise LogUnavailable("The stream log is closed.")
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let others write."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the file back; the lock with it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    async def _retry(self) -> None:
        began = monotonic()
        while monotonic() - began < self._seconds_max:
            await asyncio.sleep(random.uniform(*RETRY_SECONDS))  # noqa: S311
            if self.acquire_nowait():
                return
        raise LogUnavailable(
            "The stream log does not answer.",
            detail=f"another process has held the store's writer lock for {self._seconds_max:g} s",
        )


_locks: "weakref.WeakSet[WriterLock]" = weakref.WeakSet()


def _close_inherited() -> None:
    """A forked child shares the open file: while it lived, the lock would outlive a parent that died holding it."""
    for lock in list(_locks):
        with contextlib.suppress(OSError):
            lock.close()


os.register_at_fork(after_in_child=_close_inherited)
