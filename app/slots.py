"""One Unix socket for each worker, so that NGINX, and not a race of `accept` calls, spreads the streams.

A worker's slot is a number from 1 to WORKERS and its socket `worker-<slot>.sock`. A successor renames its own socket
over its predecessor's: the path is never missing, and a request reaches either the old worker or the new one.
"""

import contextlib
import mmap
import os
import socket
import struct
from pathlib import Path

# sun_path holds 108 bytes on Linux, the ending zero included: unix(7).
PATH_BYTES_MAX = 107
_AGE = struct.Struct("=Q")


class Slots:
    """Which worker has which slot. Made in Gunicorn's master; the workers share it by inheritance.

    Args:
        folder: where the sockets are.
        count: how many slots there are.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count
        self._ages = mmap.mmap(-1, _AGE.size * (count + 1))

    def assign(self, age: int, held: dict[int, int]) -> int:
        """The slot of the worker that is about to be forked.

        Args:
            age: Gunicorn's number of the worker; a later worker has a greater one.
            held: the age of the youngest living worker of each slot that has one.

        Returns:
            a free slot, else the one whose worker is the oldest, which this one is to follow.
        """
        free = [slot for slot in range(1, self._count + 1) if slot not in held]
        slot = free[0] if free else min(held, key=lambda taken: held[taken])
        _AGE.pack_into(self._ages, slot * _AGE.size, age)
        return slot

    def has_successor(self, slot: int, age: int) -> bool:
        """Whether a younger worker was forked for the slot."""
        (youngest,) = _AGE.unpack_from(self._ages, slot * _AGE.size)
        return bool(youngest > age)

    def socket(self, slot: int) -> "SlotSocket":
        """A socket for the slot; bound, and not yet in place."""
        return SlotSocket(self._folder / f"worker-{slot}.sock")


class SlotSocket:
    """A listening socket that takes its path only when its worker can answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._beat = path.with_suffix(".beat")
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        if len(os.fsencode(temporary)) > PATH_BYTES_MAX:
            raise OSError(
                f"SLUICE_SOCKET_DIR: {temporary} is longer than the {PATH_BYTES_MAX} bytes of a socket's path"
            )
        temporary.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.bind(str(temporary))
        except OSError as error:
            self.socket.close()
            raise OSError(error.errno, f"SLUICE_SOCKET_DIR: {error.strerror}", str(temporary)) from None
        # NGINX may run as another user of the same group; the folder's mode keeps everybody else out.
        temporary.chmod(0o660)
        self._temporary = temporary
        self._inode = temporary.stat().st_ino

    def publish(self) -> None:
        """Take the path, also from a predecessor."""
        self._temporary.rename(self.path)

    @property
    def current(self) -> bool:
        """Whether the path is still this socket's."""
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def beat(self) -> None:
        """Leave a sign of life beside the socket; its time of change is what counts."""
        if self.current:
            self._beat.touch()

    def withdraw(self) -> None:
        """Let NGINX find another worker, unless a successor has the path already."""
        if self.current:
            self.path.unlink()
            with contextlib.suppress(FileNotFoundError):
                self._beat.unlink()
        self._temporary.unlink(missing_ok=True)
