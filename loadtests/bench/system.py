"""What can be measured: something that answers on a port, its processes, and how it is started."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from loadtests.bench.ports import wait_until_answers
from loadtests.bench.processes import Cores, started
from loadtests.bench.procfs import Procfs

# How a process's command line shows what it is; a word alone could be part of a path.
MARKS = {"gunicorn": "gunicorn.conf.py", "nginx": "nginx: ", "redis": "redis-server "}


class Site(NamedTuple):
    """Where a row is measured: what runs on which core, and where it writes."""

    programs: Path
    cores: Cores
    state: Path
    gateway_log: Path


class System(NamedTuple):
    """Something that answers on `port`; without a gateway, `root` is None. `marks` tells its processes apart.

    `header` is what it wants to see in each request; `beside` are processes that work for it and are not its own.
    """

    port: int
    root: int | None = None
    marks: Mapping[str, str] = MARKS
    header: str = ""
    beside: tuple[int, ...] = ()

    def processes(self, proc: Procfs) -> dict[str, list[int]]:
        """Its processes by what they are. What has none of the marks keeps things running, at no cost."""
        groups: dict[str, list[int]] = {}
        own = proc.descendants(self.root) if self.root else []
        for pid in [*own, *self.beside]:
            command = proc.command(pid)
            group = next((name for name, mark in self.marks.items() if mark in command), "other")
            groups.setdefault(group, []).append(pid)
        return groups


Start = Callable[[Site, int], contextlib.AbstractContextManager[System]]


@contextlib.contextmanager
def running(
    site: Site, command: Sequence[str], environment: Mapping[str, str], port: int, path: str = "/readyz"
) -> Iterator[subprocess.Popen[bytes]]:
    """A gateway on its core, once GET `path` has 200."""
    with started(command, site.cores.gateway, site.gateway_log, environment) as process:
        wait_until_answers(port, path, 200, process, site.gateway_log)
        yield process
