"""What a process holds that it has to give back: files, connections, memory, threads and tasks."""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.support.inside import probe

INSIDE = Path(__file__).parent / "inside"


class Footprint(NamedTuple):
    """One worker's.

    Args:
        files: open descriptors by kind, but for NGINX's connections, which it keeps and drops as it likes.
        private_bytes: memory that is nobody else's: the log's map apart.
        tasks: of its event loop, by name; the requests that are just being answered too.
    """

    files: Counter[str]
    private_bytes: int
    threads: int
    tasks: Counter[str]


def inside_env(folder: Path, sabotage: str = "") -> dict[str, str]:
    """What a chain's environment needs for a look inside its workers."""
    found = {
        "PYTHONPATH": str(INSIDE),
        "SLUICE_TEST_HOME": str(INSIDE.parents[2]),
        "SLUICE_TEST_INSIDE": str(folder),
    }
    return found | {"SLUICE_TEST_SABOTAGE": sabotage} if sabotage else found


def footprint(pid: int, folder: Path) -> Footprint:
    """Of one worker, which `inside_env` let us look into."""
    insides = probe.ask(folder, pid)
    return Footprint(open_files(pid), private_bytes(pid), insides.threads, insides.tasks)


def private_bytes(pid: int) -> int:
    """Memory that is nobody else's. Pages of the log's map count as private too while only one worker has read them."""
    maps = psutil.Process(pid).memory_maps(grouped=False)
    return sum(part.private_clean + part.private_dirty for part in maps if not part.path.endswith(".mdb"))


def open_files(pid: int) -> Counter[str]:
    """What its descriptors lead to, numbers left out."""
    ours = _worker_connections()
    found: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        kind, _, rest = target.partition(":")
        if kind == "socket":
            if rest.strip("[]") not in ours:
                found["socket"] += 1
        else:
            found[kind if rest else "file"] += 1
    return found


def _worker_connections() -> set[str]:
    """Inodes of connections on workers' sockets; a listening one has the flag 00010000."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {line[6] for line in lines if len(line) > 7 and "/worker-" in line[7] and line[3] != "00010000"}
