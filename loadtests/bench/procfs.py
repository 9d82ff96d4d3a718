"""What the kernel says of processes and cores: CPU time, private memory, family. Reads /proc only.

A process that has gone, or whose memory we may not read, counts as nothing: trees change while they are read.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Places of the fields behind the command in /proc/<pid>/stat, which starts with the state: proc(5).
PARENT, USER, SYSTEM, CHILDREN_USER, CHILDREN_SYSTEM = 1, 11, 12, 13, 14
IDLE, IOWAIT = 3, 4  # of a core's line in /proc/stat


class CoreSeconds(NamedTuple):
    """Time that a core has been busy, and in all."""

    busy: float
    total: float

    def since(self, earlier: "CoreSeconds") -> "CoreSeconds":
        return CoreSeconds(self.busy - earlier.busy, self.total - earlier.total)


class Procfs:
    """A view of /proc.

    Args:
        root: where it is mounted.
    """

    def __init__(self, root: Path = Path("/proc")) -> None:
        self._root = root

    def descendants(self, pid: int) -> list[int]:
        """`pid` and all that it started, directly or not."""
        children: dict[int, list[int]] = {}
        for entry in self._root.iterdir():
            if entry.name.isdigit() and (stat := self._stat(int(entry.name))):
                children.setdefault(int(stat[PARENT]), []).append(int(entry.name))
        family = [pid]
        for member in family:
            family += children.get(member, [])
        return family

    def command(self, pid: int) -> str:
        """The command line, its words separated by spaces."""
        return self._read(f"{pid}/cmdline").replace("\0", " ").strip()

    def cpu_seconds(self, pids: Iterable[int]) -> float:
        """User and system time, that of children which have ended and were waited for included."""
        ticks = 0
        for pid in pids:
            if stat := self._stat(pid):
                ticks += sum(int(stat[place]) for place in (USER, SYSTEM, CHILDREN_USER, CHILDREN_SYSTEM))
        return ticks / TICKS_PER_SECOND

    def private_kib(self, pids: Iterable[int]) -> int:
        """Memory that would be free if these processes were not, shared mappings apart.

        smaps_rollup would be one read, but counts a shared file's pages as private while one process alone has them.
        """
        return sum(_private_kib(self._read(f"{pid}/smaps")) for pid in pids)

    def core_seconds(self, core: int) -> CoreSeconds:
        """How long the core has been busy since boot. Time stolen by the hypervisor is busy."""
        for line in self._read("stat").splitlines():
            name, *fields = line.split()
            if name == f"cpu{core}":
                ticks = [int(field) for field in fields[:8]]  # those behind, guests', are within user time already
                total = sum(ticks)
                busy = total - ticks[IDLE] - ticks[IOWAIT]
                return CoreSeconds(busy / TICKS_PER_SECOND, total / TICKS_PER_SECOND)
        raise ValueError(f"there is no core {core}")

    def _stat(self, pid: int) -> list[str]:
        # A command may itself contain spaces and brackets, so the fields begin behind the last one.
        return self._read(f"{pid}/stat").rpartition(")")[2].split()

    def _read(self, path: str) -> str:
        try:
            return (self._root / path).read_text(errors="replace")
        except OSError:
            return ""


def _private_kib(smaps: str) -> int:
    total, shared = 0, False
    for line in smaps.splitlines():
        word, _, rest = line.partition(" ")
        if not word.endswith(":"):  # a mapping's first line: addresses, then permissions such as "rw-p"
            shared = rest[3:4] == "s"
        elif word.startswith("Private_") and not shared:
            total += int(rest.split()[0])
    return total
