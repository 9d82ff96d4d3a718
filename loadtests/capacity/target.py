"""What is measured: Sluice behind NGINX on one core, started here and loaded by the C generator from another core."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from loadtests.bench.build import build
from loadtests.bench.figures import Figures, Percentiles
from loadtests.bench.generator import Demand
from loadtests.bench.measurement import SETTLE_SECONDS, Bed, Bench, Row
from loadtests.bench.processes import choose_cores
from loadtests.bench.surfaces import Surface
from loadtests.bench.system import Start
from loadtests.bench.systems import SYSTEMS
from loadtests.capacity.objectives import Objectives
from loadtests.capacity.point import Cost, Health, Model, Point, make_point
from loadtests.capacity.records import Record, read_records

# Open streams vary around their mean; with as many places, none has to wait unless the target does not keep up.
PLACES_FACTOR = 2


class Site(NamedTuple):
    """A system, what is asked of it, where logs and records go, and what else there is to start."""

    system: str
    surface: Surface
    folder: Path
    systems: Mapping[str, tuple[str, Start]] = SYSTEMS


class LocalTarget:
    """A `Measure` that starts what it measures, anew for every seed and model. Use as a context manager."""

    def __init__(self, site: Site, due: Objectives) -> None:
        self._site = site
        self.surface = site.surface
        self._due = due
        self._bench = Bench(build(), site.folder, choose_cores(), site.surface, site.systems)
        self._stack = contextlib.ExitStack()
        self._bed: Bed | None = None
        self._run: tuple[Model, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def __call__(self, model: Model, streams: int, seed: int, seconds: float) -> Point:
        bed = self._fresh(model, seed)
        arrivals = streams / self._due.stream_seconds if model == "open" else 0.0
        places = streams * PLACES_FACTOR if model == "open" else streams
        demand = Demand(places, self._due.tokens_per_second, self._due.tokens_per_stream, seconds, arrivals, seed)
        file = self._site.folder / f"{self._site.system}-{model}-{streams}-{seed}.jsonl"
        row = bed.row(demand, file)
        time.sleep(SETTLE_SECONDS)
        seen = health(row.figures, row.generator_core_busy_percent, row.neighbours_percent)
        return point_of(row.figures, read_records(file), (model, streams, seed), seen, _cost(row, streams), self._due)

    def _fresh(self, model: Model, seed: int) -> Bed:
        """The bed of this run, after the one before has ended."""
        if self._bed is None or self._run != (model, seed):
            self._stack.close()
            running = self._bench.running(
                self._site.system,
                self._due.tokens_per_stream,
                self._due.tokens_per_second,
                f"{self._site.system}-{model}-{seed}",
            )
            self._bed, self._run = self._stack.enter_context(running), (model, seed)
        return self._bed


def health(figures: Figures, generator_busy_percent: float, neighbours_percent: float | None) -> Health:
    """How the generator in C fared, and the cores."""
    return Health(
        in_flight_mean=figures.in_flight_mean,
        lag_p99_ms=figures.lag_ms.p99,
        start_lag_p99_ms=figures.start_lag_ms.p99,
        generator_busy_percent=generator_busy_percent,
        neighbours_percent=neighbours_percent,
        scheduled=figures.scheduled,
        waiting=figures.waiting,
    )


def _cost(row: Row, streams: int) -> Cost:
    places = row.streams / streams  # the bench divides memory by places
    return Cost(
        row.gunicorn_cpu_us_per_token,
        row.nginx_cpu_us_per_token,
        None if row.gunicorn_kib_per_stream is None else row.gunicorn_kib_per_stream * places,
        None if row.nginx_kib_per_stream is None else row.nginx_kib_per_stream * places,
    )


def point_of(
    figures: Figures, records: list[Record], load: tuple[Model, int, int], seen: Health, cost: Cost, due: Objectives
) -> Point:
    """The point of a load (model, streams, seed) that the generator in C made."""
    model, streams, seed = load
    return make_point(
        model=model,
        streams=streams,
        seed=seed,
        window_seconds=figures.window_seconds,
        tokens=figures.tokens,
        records=records,
        gap_ms=_named(figures.gap_ms),
        health=seen,
        cost=cost,
        due=due,
    )


def _named(values: Percentiles) -> dict[str, float]:
    return {"p50": values.p50, "p99": values.p99, "p99.9": values.p999} if values.count else {}
