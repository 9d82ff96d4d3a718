"""Folders in memory, one for each instance, where its workers' figures wait for no disk; and what deletes those left.

On a disk, a page that is just being written back holds up who writes to it. An instance that is killed leaves its
folder; the next one, of whatever state folder, deletes it. A mark in each says whose it is: whoever lives holds the
lock of his state folder.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
from pathlib import Path

from app.observability import places

MEMORY = Path("/dev/shm")  # noqa: S108 - the file system in memory, where there is one
MARK = "instance"


def folder_of(state_dir: Path) -> Path | None:
    """The folder of the instance on `state_dir`, made if need be; None where there is no memory for it."""
    folder = MEMORY / f"{_prefix()}{hashlib.blake2b(os.fsencode(state_dir), digest_size=6).hexdigest()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return None
    return folder if _is_ours(folder) else None


def mark(folder: Path, state_dir: Path) -> None:
    """Say whose it is."""
    (folder / MARK).unlink(missing_ok=True)
    (folder / MARK).symlink_to(state_dir)


def sweep() -> None:
    """Delete the folders of those that are gone."""
    for folder in MEMORY.glob(f"{_prefix()}*"):
        if _is_ours(folder) and (gone := _take(folder)):
            shutil.rmtree(gone, ignore_errors=True)


def _take(folder: Path) -> Path | None:
    """A folder's new name, under which nobody looks for it; None if its instance lives, or nobody knows."""
    gone = folder.with_name(f"{folder.name}.gone")
    if folder.name.endswith(".gone"):
        return folder  # whoever took it was killed
    try:
        state_dir = Path(os.readlink(folder / MARK))
    except OSError:
        return None
    with contextlib.ExitStack() as held:
        try:
            lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            # So is its state; or it is in a file system that is not to be seen from here, as a container's.
            if places.anybody(folder):
                return None
        except OSError:
            return None
        else:
            held.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return None
        # Under its lock, which is held for no longer than this: an instance that just starts would be refused.
        try:
            return folder.rename(gone)
        except OSError:
            return None


def _is_ours(folder: Path) -> bool:
    """Of that name, anybody may have made something before."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _prefix() -> str:
    return f"sluice-{os.geteuid()}-"
