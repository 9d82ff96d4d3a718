"""Workers whose metrics folder is a small tmpfs: says as JSON what the exporter saw, and how the workers ended.

A program of its own, since it forks, and is run where it may mount one.
"""

import json
import os
import shutil
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from app.observability import metrics
from app.observability.families import WorkerFigures
from app.observability.figure_files import FigureFiles
from app.observability.figures import figures
from app.observability.places import claim, files
from app.observability.zeros import begin_at_zero
from tests.support.scrape import Scrape

WORKERS = 4
MODELS = 5
FULL = metrics.METRIC_FILES_FULL.name


def work(folder: Path, ready: int, end: int) -> None:
    """What a worker does of all this; it ends when told."""
    written = FigureFiles(claim(folder))
    models = [f"model-{number}" for number in range(MODELS)]
    begin_at_zero(models, [f"{model}/0" for model in models])
    figures.add(metrics.STREAMS, 1, "m", "native", "completed")
    for _ in range(3):
        written.write(figures)
    os.write(ready, b".")
    os.read(end, 1)
    os._exit(0)


def begin(folder: Path) -> tuple[int, int]:
    """A worker that has written; its pid, and what tells it to end."""
    ready_here, ready_there = os.pipe()
    end_there, end_here = os.pipe()
    pid = os.fork()
    if pid == 0:
        work(folder, ready_there, end_there)
    os.close(ready_there)
    os.close(end_there)
    os.read(ready_here, 1)
    return pid, end_here


def main(folder: Path) -> None:
    registry = CollectorRegistry()
    registry.register(WorkerFigures(folder))
    workers = [begin(folder) for _ in range(WORKERS)]
    free_bytes = shutil.disk_usage(folder).free
    found = [Scrape(registry.collect()) for _ in range(2)]
    statuses = []
    for pid, end in workers:
        os.write(end, b".")
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    for file, number in files(folder).items():
        if number > 1:
            file.unlink()
    (folder / "place-1.full").touch()  # as if that worker had been one that lacked room
    pid, end = begin(folder)
    found.append(Scrape(registry.collect()))
    os.write(end, b".")
    os.waitpid(pid, 0)
    full = [each.value(FULL) for each in found]
    streams = found[0].value("sluice_streams_total", model="m")
    said = {"full": full, "streams": streams, "statuses": statuses, "free_bytes": free_bytes}
    Path(sys.argv[2]).write_text(json.dumps(said))  # the workers' logs have the output


if __name__ == "__main__":
    main(Path(sys.argv[1]))
