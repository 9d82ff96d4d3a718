"""Processes below this one: tying them to its life, adopting the orphaned, and ending all of them. Linux only."""

import contextlib
import ctypes
import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
KILL_SECONDS_MAX = 5.0

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Descendants whose parent dies become our children, and not init's: so none is ever lost from sight."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with(parent: int) -> None:
    """SIGTERM for us when `parent`, our parent, ends, however it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os.kill(os.getpid(), signal.SIGTERM)


def die_with_parent() -> Callable[[], None]:
    """The same for a child, as `preexec_fn`."""
    return functools.partial(die_with, os.getpid())


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether that process has a handler for the signal."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def _parents() -> dict[int, int]:
    """The parent of every process, by pid."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name may hold spaces and brackets; what follows its last bracket does not.
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it ended meanwhile
    return parents


def children() -> set[int]:
    return {pid for pid, parent in _parents().items() if parent == os.getpid()}


def descendants() -> set[int]:
    parents = _parents()
    found: set[int] = set()
    frontier = {os.getpid()}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return found


def send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def reap() -> dict[int, int]:
    """Exit codes of the children that ended since the last call, by pid."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def kill_all() -> None:
    """Ends every descendant at once, also those that appear meanwhile."""
    deadline = time.monotonic() + KILL_SECONDS_MAX
    while time.monotonic() < deadline:
        reap()
        alive = descendants()
        if not alive:
            return
        for pid in alive:
            send(pid, signal.SIGKILL)
        time.sleep(0.02)
