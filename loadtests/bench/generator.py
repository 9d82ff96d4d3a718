"""Runs `load`, and says when its window opens and closes."""

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from loadtests.bench.errors import BenchError
from loadtests.bench.figures import Figures
from loadtests.bench.processes import spawn, stop
from loadtests.bench.surfaces import Surface

# Of streams that live for longer none would end before the window closes, and they would end in waves.
RAMP_SECONDS_MAX = 30.0
# A gap this many times the pace is one that a reader notices.
STALL_FACTOR = 2
# Beyond ramp and window: the settling second, and a machine that is slow to schedule.
SLACK_SECONDS = 30.0


class Demand(NamedTuple):
    """How many streams of how many tokens at which pace, for how long.

    `arrivals_per_second` above 0 is the open model: streams begin as often, whatever the server does, and `streams` is
    the most that may be open. A `seed` other than 0 moves the beginnings.
    """

    streams: int
    rate: float
    tokens: int
    seconds: float
    arrivals_per_second: float = 0.0
    seed: int = 0

    @property
    def ramp_seconds(self) -> float:
        """Spread over the life of one stream, so that requests then arrive evenly and not in waves."""
        return min(RAMP_SECONDS_MAX, self.tokens / self.rate)

    @property
    def stall_ms(self) -> float:
        return STALL_FACTOR * 1000 / self.rate


class Generator:
    """A running `load`; call the methods in their order."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def wait_for_window(self) -> None:
        """Until the figures begin to count."""
        self._line()

    def figures(self) -> Figures:
        """The figures, at the moment that the window closes. The streams stay open."""
        return msgspec.json.decode(self._line(), type=Figures)

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith((b"window", b"{")):
            raise BenchError(f"load ended early: {line.decode(errors='replace').strip() or 'without a word'}")
        return line


@contextlib.contextmanager
def generating(
    programs: Path, core: int, port: int, surface: Surface, demand: Demand, records: Path | None = None
) -> Iterator[Generator]:
    """`load` against `port`, which writes a line for each stream to `records`; its streams close on leaving."""
    options: dict[str, object] = {
        "port": port,
        "path": surface.path,
        "body": surface.body,
        "streams": demand.streams,
        "ramp": demand.ramp_seconds,
        "seconds": demand.seconds,
        "stall-ms": demand.stall_ms,
        "arrivals": demand.arrivals_per_second,
        "seed": demand.seed,
        "header": surface.header,
        "host": surface.host,
    }
    if records is not None:
        options["records"] = records
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    if not surface.stamped:
        words.append("--unstamped")
    process = spawn([str(programs / "load"), *words], core, subprocess.PIPE)
    overdue = threading.Timer(demand.ramp_seconds + demand.seconds + SLACK_SECONDS, process.kill)
    overdue.start()
    try:
        yield Generator(process)
    finally:
        overdue.cancel()
        stop(process)
        if process.stdout is not None:
            process.stdout.close()
