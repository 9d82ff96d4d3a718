"""Measures one row: a system under one demand."""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from loadtests.bench.figures import Figures
from loadtests.bench.generator import Demand, Generator, generating
from loadtests.bench.processes import Cores
from loadtests.bench.procfs import CoreSeconds, Procfs
from loadtests.bench.surfaces import Surface
from loadtests.bench.system import Site, Start, System
from loadtests.bench.systems import SYSTEMS, origin

# A few streams before the figures count: connections, caches and specialised bytecode are then as they stay.
WARM_UP = Demand(streams=8, rate=20, tokens=20, seconds=1)
# Until a gateway has noticed that the warm-up's clients are gone, and has cleaned up.
SETTLE_SECONDS = 1.5


class Row(msgspec.Struct, frozen=True):
    """One line of the table. None where there is no such process.

    `neighbours_percent` is the share of the gateway's core that went to others, or to interrupts;
    `gunicorn_cpu_us_of_rounds`, from the least, a token's CPU in each round that this row is the middle of.
    """

    system: str
    name: str
    streams: int
    offered_tokens: float
    figures: Figures
    generator_core_busy_percent: float
    neighbours_percent: float | None
    gunicorn_cpu_us_per_token: float | None
    nginx_cpu_us_per_token: float | None
    redis_cpu_us_per_token: float | None
    gunicorn_kib_per_stream: float | None
    nginx_kib_per_stream: float | None
    gunicorn_cpu_us_of_rounds: list[float] = []

    @property
    def achieved_percent(self) -> float:
        return 100 * self.figures.tokens / self.offered_tokens


class Reading(NamedTuple):
    """What the clocks say at one moment: by process group, and of both cores."""

    cpu_seconds: dict[str, float]
    generator_core: CoreSeconds
    gateway_core: CoreSeconds


class Bed:
    """A system that runs, on which rows are measured one after the other.

    Memory at rest is that after the warm-up, also for later rows: allocators keep what an earlier row made them take.
    """

    def __init__(self, programs: Path, cores: Cores, surface: Surface, name: tuple[str, str], running: System) -> None:
        self._programs = programs
        self._cores = cores
        self._surface = surface
        self._system, self._name = name
        self._running = running
        self._proc = Procfs()
        self._warm_up()
        self._idle_kib = self._private_kib()

    def row(self, demand: Demand, records: Path | None = None) -> Row:
        """Load the system; with a line for each stream in `records`, if that is wanted."""
        with self._generating(demand, records) as generator:
            generator.wait_for_window()
            before = self._read()
            figures = generator.figures()
            after = self._read()
            loaded_kib = self._private_kib()  # last: walking a process's memory holds it up
        cpu = {group: seconds - before.cpu_seconds[group] for group, seconds in after.cpu_seconds.items()}
        # Redis is on the other core.
        own_seconds = sum(seconds for group, seconds in cpu.items() if group != "redis")
        cpu_us = {group: 1e6 * seconds / max(1, figures.tokens) for group, seconds in cpu.items()}
        kib = {group: (loaded_kib[group] - kib) / demand.streams for group, kib in self._idle_kib.items()}
        generator_core = after.generator_core.since(before.generator_core)
        gateway_core = after.gateway_core.since(before.gateway_core)
        return Row(
            system=self._system,
            name=self._name,
            streams=demand.streams,
            offered_tokens=demand.streams * demand.rate * figures.window_seconds,
            figures=figures,
            generator_core_busy_percent=100 * generator_core.busy / generator_core.total,
            neighbours_percent=100 * (gateway_core.busy - own_seconds) / gateway_core.total if cpu else None,
            gunicorn_cpu_us_per_token=cpu_us.get("gunicorn"),
            nginx_cpu_us_per_token=cpu_us.get("nginx"),
            redis_cpu_us_per_token=cpu_us.get("redis"),
            gunicorn_kib_per_stream=kib.get("gunicorn"),
            nginx_kib_per_stream=kib.get("nginx"),
        )

    def _warm_up(self) -> None:
        with self._generating(WARM_UP, None) as generator:
            generator.wait_for_window()
            generator.figures()
        time.sleep(SETTLE_SECONDS)

    def _generating(self, demand: Demand, records: Path | None) -> contextlib.AbstractContextManager[Generator]:
        surface = self._surface._replace(header=self._running.header or self._surface.header)
        return generating(self._programs, self._cores.generator, self._running.port, surface, demand, records)

    def _read(self) -> Reading:
        groups = self._running.processes(self._proc)
        return Reading(
            {group: self._proc.cpu_seconds(pids) for group, pids in groups.items()},
            self._proc.core_seconds(self._cores.generator),
            self._proc.core_seconds(self._cores.gateway),
        )

    def _private_kib(self) -> dict[str, int]:
        return {group: self._proc.private_kib(pids) for group, pids in self._running.processes(self._proc).items()}


class Bench:
    """Starts systems to be measured on two cores.

    Args:
        programs: the folder with `origin` and `load`.
        logs: where each gateway leaves its output.
        systems: what can be started, by a short name; each with its name for people.
    """

    def __init__(
        self,
        programs: Path,
        logs: Path,
        cores: Cores,
        surface: Surface,
        systems: Mapping[str, tuple[str, Start]] = SYSTEMS,
    ) -> None:
        self._programs = programs
        self._logs = logs
        self._cores = cores
        self._surface = surface
        self._systems = systems

    def measure(self, system: str, demand: Demand) -> Row:
        """Start the system and an origin, load them, stop them."""
        with self.running(system, demand.tokens, demand.rate, f"{system}-{demand.streams}") as bed:
            return bed.row(demand)

    @contextlib.contextmanager
    def running(self, system: str, tokens: int, rate: float, name: str) -> Iterator[Bed]:
        """The system before an origin of streams of so many tokens at that pace, warm; its output is in `name`.log."""
        # Not under the repository: the path of a Unix socket must stay below 108 bytes.
        with tempfile.TemporaryDirectory(prefix="sluice-bench-") as state:
            site = Site(self._programs, self._cores, Path(state), self._logs / f"{name}.log")
            label, start = self._systems[system]
            with origin(site, tokens, rate) as port, start(site, port) as running:
                yield Bed(self._programs, self._cores, self._surface, (system, label), running)
