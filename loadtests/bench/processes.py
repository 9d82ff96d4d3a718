"""Starts programs on a core of their own and stops them, with bounds on both."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from deploy.processes import die_with_parent
from loadtests.bench.errors import BenchError

REPOSITORY = Path(__file__).parents[2]
STOP_SECONDS_MAX = 30
LOG_LINES_SHOWN = 5


class Cores(NamedTuple):
    """Where each side of a measurement runs."""

    gateway: int
    generator: int


def choose_cores() -> Cores:
    """The first and the last core that we may use: neighbours in number are often two threads of one core.

    Raises:
        BenchError: there is only one, and generator and gateway would measure each other.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise BenchError("this needs two cores: one for the gateway, one for origin and load")
    return Cores(gateway=allowed[0], generator=allowed[-1])


@contextlib.contextmanager
def started(
    command: Sequence[str], core: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program on `core`, with its output in `log`; stopped on leaving, whatever it has started included."""
    with log.open("wb") as output:
        process = spawn(command, core, output, environment=environment)
    try:
        yield process
    finally:
        stop(process)


def spawn(
    command: Sequence[str],
    core: int,
    stdout: int | IO[bytes],
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """A program in a process group of its own, on `core` from its first instruction on. It ends when we do."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # inherited; set afterwards, it would miss what the program starts at once
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=REPOSITORY,
            env=environment,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - two system calls, no lock
        )
    finally:
        os.sched_setaffinity(0, own)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and end its whole group if it does not."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS_MAX)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_lines(log: Path) -> str:
    """The end of a log, for the message about why its program is not there."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])
