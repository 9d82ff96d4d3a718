"""What is measured: a Sluice that somebody else runs, by plain HTTP, with its model's pace and what its operators see.

It is taken as it is, with its limits and its workers, and not started anew between seeds. What NGINX takes and what
else runs there cannot be seen from here; what the workers take is in their figures, where these are within reach.
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loadtests.bench.build import build
from loadtests.bench.errors import BenchError
from loadtests.bench.figures import Figures
from loadtests.bench.generator import Demand, generating
from loadtests.bench.measurement import SETTLE_SECONDS, WARM_UP
from loadtests.bench.procfs import Procfs
from loadtests.bench.surfaces import Surface
from loadtests.capacity.objectives import Objectives
from loadtests.capacity.point import Cost, Model, Point
from loadtests.capacity.records import read_records
from loadtests.capacity.target import PLACES_FACTOR, health, point_of
from loadtests.surfaces import Native, Wish

PROMPT = "Tell me a story."
SIMULATOR = "simulator"
SCRAPE_SECONDS_MAX = 10.0


class UnusableTarget(ValueError):
    """An address that cannot be measured; the message says why."""


class Remote(NamedTuple):
    """Where a Sluice is, where its pods give their figures, what it is asked, and where records go."""

    url: str
    ops: Sequence[str]
    model: str
    header: str
    folder: Path

    def surface(self, due: Objectives) -> tuple[Surface, int]:
        """What is asked of it, and its port.

        Raises:
            UnusableTarget: it is not plain HTTP.
        """
        parts = urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname:
            raise UnusableTarget(
                f"{self.url!r} is not http://host:port. The generator speaks no TLS: measure behind what ends it, "
                "or use Locust (loadtests/README.md)"
            )
        # A real model has a pace of its own, which the profile must have too.
        pace = due.tokens_per_second if self.model == SIMULATOR else None
        wish = Wish(PROMPT, due.tokens_per_stream, pace, first_token_ms=0)
        body = json.dumps(Native().body(wish, self.model))
        path = parts.path.rstrip("/") + Native.path
        return Surface(path, body, self.header, parts.hostname, stamped=False), parts.port or 80


class Seen(NamedTuple):
    """What the pods' figures say at a moment."""

    workers: int
    cpu_seconds: float
    resident_bytes: float
    version: str


class RemoteTarget:
    """A `Measure` of what runs already. Use as a context manager."""

    def __init__(self, site: Remote, due: Objectives) -> None:
        self._site = site
        self._due = due
        self.surface, self._port = site.surface(due)
        self._programs = build()
        self._core = max(os.sched_getaffinity(0))
        self._proc = Procfs()

    def __enter__(self) -> Self:
        errors = self._load(WARM_UP._replace(streams=1))[0].errors()
        if errors:
            told = ", ".join(f"{count} × {kind}" for kind, count in errors.items())
            raise BenchError(f"{self._site.url} does not stream {self._site.model!r} to us: {told}")
        time.sleep(SETTLE_SECONDS)
        self.idle = self._scrape()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing was started."""

    def __call__(self, model: Model, streams: int, seed: int, seconds: float) -> Point:
        arrivals = streams / self._due.stream_seconds if model == "open" else 0.0
        places = streams * PLACES_FACTOR if model == "open" else streams
        demand = Demand(places, self._due.tokens_per_second, self._due.tokens_per_stream, seconds, arrivals, seed)
        file = self._site.folder / f"target-{model}-{streams}-{seed}.jsonl"
        figures, cost, busy_percent = self._load(demand, file, streams)
        time.sleep(SETTLE_SECONDS)
        seen = health(figures, busy_percent, None)
        return point_of(figures, read_records(file), (model, streams, seed), seen, cost, self._due)

    def _load(self, demand: Demand, file: Path | None = None, streams: int = 0) -> tuple[Figures, Cost, float]:
        """The figures of one load, what it cost, and how busy our core was."""
        with generating(self._programs, self._core, self._port, self.surface, demand, file) as generator:
            generator.wait_for_window()
            core, before = self._proc.core_seconds(self._core), self._scrape()
            figures = generator.figures()
            used, after = self._proc.core_seconds(self._core).since(core), self._scrape()
        if before is None or after is None or not streams:
            return figures, Cost(), 100 * used.busy / used.total
        cost = Cost(
            cpu_us_per_token=1e6 * (after.cpu_seconds - before.cpu_seconds) / max(1, figures.tokens),
            kib_per_stream=max(0.0, after.resident_bytes - self.idle.resident_bytes) / 1024 / streams
            if self.idle
            else None,
        )
        return figures, cost, 100 * used.busy / used.total

    def _scrape(self) -> Seen | None:
        """The sum of all pods; None where nobody said where they give their figures.

        Raises:
            BenchError: one of them does not.
        """
        if not self._site.ops:
            return None
        sums: dict[str, float] = {}
        version = "unknown"
        for address in self._site.ops:
            try:
                answer = httpx.get(f"{address.rstrip('/')}/metrics", timeout=SCRAPE_SECONDS_MAX).raise_for_status()
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise BenchError(f"{address}: no figures: {error}") from None
            for family in text_string_to_metric_families(answer.text):
                for sample in family.samples:
                    sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
                    if sample.name == "sluice_build_info":
                        version = sample.labels["version"]
        names = ("sluice_workers", "sluice_worker_cpu_seconds_total", "sluice_worker_resident_bytes")
        missing = [name for name in names if name not in sums]
        if missing:
            raise BenchError(f"{' '.join(self._site.ops)}: gives no {', '.join(missing)}: is it Sluice's exporter?")
        workers, cpu_seconds, resident_bytes = (sums[name] for name in names)
        return Seen(int(workers), cpu_seconds, resident_bytes, version)
