"""Numbered places in a folder, each held by one living process: where a worker keeps its figures.

A place is a lock that the kernel lets go of however its holder ends. The next worker takes the place and goes on in the
files of the one before it: there are never more files than workers at one time, and no counter ever falls.
"""

import fcntl
import os
import re
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# More than workers may live at one time, those that drain included.
PLACES_MAX = 1024
# `struct flock` of fcntl(2): type, whence, start, length, pid. All of the file; pid is 0 for locks of open files.
_FLOCK = struct.Struct("hhqqi0q")
_FILE = re.compile(r"(?:counter|histogram|gauge_[a-z]+)_(\d+)\.db")
_EXCLUSIVE = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


class Place(NamedTuple):
    """One that this process holds until it ends. `fd` is what the lock is on."""

    folder: Path
    number: int
    fd: int

    def file(self, kind: str) -> Path:
        """One of its files, named as prometheus_client names them."""
        return self.folder / f"{kind}_{self.number}.db"

    def set_full(self, full: bool) -> None:
        """Let the exporter know whether there was room. An empty file: where no page is left, a name still fits."""
        mark = _mark(self.folder, self.number)
        with suppress(OSError):
            mark.touch() if full else mark.unlink(missing_ok=True)


def claim(folder: Path) -> Place:
    """The first place that nobody holds.

    Raises:
        OSError: the folder cannot be used.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in range(1, PLACES_MAX + 1):
        fd = os.open(_lock(folder, number), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Of the open file and not of the process: it can be looked at without being taken, as `is_held` does.
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _EXCLUSIVE)
        except OSError:
            os.close(fd)
            continue
        return Place(folder, number, fd)
    raise OSError(f"all {PLACES_MAX} places of {folder} are held")


def is_held(folder: Path, number: int) -> bool:
    """Whether a living process has the place."""
    try:
        fd = os.open(_lock(folder, number), os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _EXCLUSIVE)
    finally:
        os.close(fd)
    kind: int = _FLOCK.unpack(answer)[0]
    return kind != fcntl.F_UNLCK


def anybody(folder: Path) -> bool:
    """Whether a living process has a place in the folder."""
    return any(is_held(folder, int(lock.stem.partition("-")[2])) for lock in folder.glob("place-*.lock"))


def full(folder: Path) -> int:
    """How many living processes have found no room for their figures."""
    return sum(is_held(folder, number) for number in _marks(folder).values())


def files(folder: Path) -> dict[Path, int]:
    """The files of all places, with the number of each."""
    found = ((file, _FILE.fullmatch(file.name)) for file in sorted(folder.glob("*.db")))
    return {file: int(match[1]) for file, match in found if match}


def clear(folder: Path) -> None:
    """Remove what was left by processes that are gone: a new start counts from nothing."""
    for file, number in (files(folder) | _marks(folder)).items():
        if not is_held(folder, number):
            file.unlink(missing_ok=True)


def _lock(folder: Path, number: int) -> Path:
    return folder / f"place-{number}.lock"


def _marks(folder: Path) -> dict[Path, int]:
    return {mark: int(mark.stem.partition("-")[2]) for mark in folder.glob("place-*.full")}


def _mark(folder: Path, number: int) -> Path:
    return folder / f"place-{number}.full"
