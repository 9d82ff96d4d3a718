"""What the exporter serves, as collectors: the workers' figures from their files, and what it finds out itself."""

import os
import platform
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector

from app.observability import certificate, metrics, nginx_status, places
from app.observability.figure_files import is_sound
from app.observability.metrics import Declared
from app.version import VERSION


class WorkerFigures:
    """The sums of all workers' files; gauges of the living alone. A damaged file is left out, and counted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._skipped = self._full = 0
        self._lock = threading.Lock()  # each scrape has a thread of its own

    def collect(self) -> Iterable[Metric]:
        numbers = {file: number for file, number in places.files(self._folder).items() if _size(file)}
        alive = {number for number in set(numbers.values()) if places.is_held(self._folder, number)}
        shown = [file for file in numbers if numbers[file] in alive or not file.name.startswith("gauge_")]
        sound = [file for file in shown if is_sound(file)]
        # A dead worker's whose place is just being taken is gone by now; or was, and the new worker's is there.
        damaged = [file for file in shown if file not in sound and file.exists() and not is_sound(file)]
        with self._lock:
            self._skipped += len(damaged)
            self._full += places.full(self._folder)
        yield from MultiProcessCollector.merge([str(file) for file in sound])  # type: ignore[no-untyped-call]
        yield gauge(metrics.METRIC_FILES, len(numbers))
        yield gauge(metrics.WORKERS_ALIVE, len(alive))
        yield counter(metrics.METRIC_FILES_SKIPPED, self._skipped)
        yield counter(metrics.METRIC_FILES_FULL, self._full)


class OwnFigures:
    """What runs here, and what NGINX and the workers' signs of life say.

    Args:
        beat_ages: how long ago each slot's worker was heard of, in seconds; see the exporter.
    """

    def __init__(
        self,
        workers: int,
        beat_ages: Callable[[], dict[int, float]],
        nginx_socket: Path | None,
        certificate_file: Path | None,
    ) -> None:
        self._workers = workers
        self._beat_ages = beat_ages
        self._nginx_socket = nginx_socket
        self._certificate_file = certificate_file

    def collect(self) -> Iterable[Metric]:
        yield gauge(metrics.BUILD_INFO, 1, VERSION, platform.python_version())
        yield gauge(metrics.WORKERS, self._workers)
        ages = _family(metrics.BEAT_AGE)
        for slot, age in self._beat_ages().items():
            ages.add_metric([str(slot)], age)
        yield ages
        if self._nginx_socket is not None:
            yield from self._nginx(self._nginx_socket)
        if self._certificate_file is not None and (expiry := certificate.expiry(self._certificate_file)) is not None:
            yield gauge(metrics.CERTIFICATE_EXPIRY, expiry)

    def _nginx(self, path: Path) -> Iterable[Metric]:
        status = nginx_status.fetch(path)
        yield gauge(metrics.NGINX_UP, 0 if status is None else 1)
        if status is None:
            return
        connections = _family(metrics.NGINX_CONNECTIONS)
        for state in ("reading", "writing", "waiting"):
            connections.add_metric([state], getattr(status, state))
        yield connections
        yield counter(metrics.NGINX_ACCEPTED, status.accepted)
        yield counter(metrics.NGINX_HANDLED, status.handled)
        yield counter(metrics.NGINX_REQUESTS, status.requests)


def gauge(metric: Declared, value: float, *labels: str) -> GaugeMetricFamily:
    """A gauge with one series."""
    family = _family(metric)
    family.add_metric(labels, value)
    return family


def counter(metric: Declared, value: float) -> CounterMetricFamily:
    """A counter with one series."""
    family = CounterMetricFamily(metric.name, metric.help)
    family.add_metric([], value)
    return family


def _family(metric: Declared) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def beat_ages(socket_dir: Path | None, workers: int) -> dict[int, float]:
    """Seconds since each slot's worker gave a sign of life; those that never did are as old as time.

    A worker that has only just made its socket has yet to beat.
    """
    if socket_dir is None:
        return {}
    now = time.time()
    kinds = ("beat", "sock")
    return {
        slot: max(0.0, now - max(_changed_at(socket_dir / f"worker-{slot}.{kind}") for kind in kinds))
        for slot in range(1, workers + 1)
    }


def _changed_at(file: Path) -> float:
    try:
        return os.stat(file).st_mtime
    except FileNotFoundError:
        return 0.0
