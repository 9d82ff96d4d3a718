"""Looks once a second at what this worker's parts show, and brings the figures of all of them to the exporter's files.

What is counted where it happens is in `figures` already. A killed worker takes at most the last second of it along.
"""

import asyncio
import os
import resource
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import process_time

import structlog

from app.errors import LogUnavailable
from app.limits.limiter import Limiter
from app.observability import metrics
from app.observability.figure_files import FigureFiles
from app.observability.figures import figures
from app.observability.log_writer import LogWriter
from app.observability.zeros import begin_at_zero
from app.routing.route import Route
from app.streams.drain import Drain
from app.streams.registry import Streams

log = structlog.get_logger(__name__)

SAMPLE_SECONDS = 1.0
# What costs a system call or a question to a store, and changes slowly.
SLOW_SECONDS = 5.0
BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}
PAGE_BYTES = resource.getpagesize()


class Sampler:
    """One for each worker; `run` is its task.

    Args:
        files: where figures go; None where nobody takes them.
    """

    def __init__(
        self,
        streams: Streams,
        drain: Drain,
        routes: Mapping[str, Route],
        limiter: Limiter,
        lines: LogWriter,
        files: FigureFiles | None,
    ) -> None:
        self._streams = streams
        self._drain = drain
        self._targets = [target for route in routes.values() for target in route.targets]
        self._limiter = limiter
        self._lines = lines
        self._files = files
        self._name = str(files.place.number) if files is not None else "1"
        figures.allow("model", routes)
        upstreams = [target.name for target in self._targets]
        figures.allow("upstream", upstreams)
        begin_at_zero(routes, upstreams)

    async def run(self) -> None:
        """For ever."""
        figures.add(metrics.WORKER_STARTS)
        await asyncio.gather(self._every(SAMPLE_SECONDS, self._sample), self._every(SLOW_SECONDS, self._look_slowly))

    async def _every(self, seconds: float, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await look()
            except Exception:
                log.exception("sampling failed")
            await asyncio.sleep(seconds)

    async def _sample(self) -> None:
        self.write()

    def write(self) -> None:
        """Look at everything that costs nothing, and write down what there is."""
        figures.settle()
        self._look()
        if self._files is not None:
            self._files.write(figures)

    def _look(self) -> None:
        streams, committer = self._streams, self._streams.committer
        for draining in (False, True):
            here = streams.draining == draining
            word = "true" if draining else "false"
            figures.set(metrics.ACTIVE_STREAMS, len(streams.owned) if here else 0, word)
            figures.set(metrics.ACTIVE_READERS, self._drain.readers if here else 0, word)
        figures.set(metrics.STREAMS_MAX, streams.places.places_max)
        figures.set(metrics.ADMISSION_QUEUE, streams.places.waiting)
        for cause, count in streams.places.shed.items():
            figures.reach(metrics.ADMISSION_SHED, count, cause)
        figures.set(metrics.DRAINING_WORKERS, streams.draining)
        figures.set(metrics.LOG_AVAILABLE, committer.available)
        figures.reach(metrics.EVENTS, committer.events)
        figures.reach(metrics.LOG_MISSED, committer.unlogged_events)
        figures.reach(metrics.LIMITER_FALLBACKS, self._limiter.fallbacks)
        figures.reach(metrics.LOG_LINES_DROPPED, self._lines.dropped)
        figures.reach(metrics.CPU_SECONDS, process_time())
        for target in self._targets:
            figures.set(metrics.UPSTREAM_ACTIVE, target.gate.taken, target.name)
            figures.set(metrics.UPSTREAM_QUEUE, target.gate.waiting, target.name)
            figures.set(metrics.BREAKER, BREAKER_STATES[target.breaker.state], target.name)

    async def _look_slowly(self) -> None:
        figures.set(metrics.MEMORY_BYTES, _resident_bytes(), self._name)
        figures.set(metrics.OPEN_FILES, len(os.listdir("/proc/self/fd")), self._name)
        figures.set(metrics.OPEN_FILES_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        with suppress(LogUnavailable):
            fill = await self._streams.backend.fill()
            figures.set(metrics.LOG_BYTES, fill.bytes_used)
            figures.set(metrics.LOG_BYTES_MAX, fill.bytes_max)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES  # proc(5): the second field
