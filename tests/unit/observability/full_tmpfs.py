"""Workers whose metrics folder is a small tmpfs: says as JSON what the exporter saw, and how the workers ended.

A program of its own, since it forks, and is run where it may mount one.
"""

import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from app.observability import metrics
from app.observability.families import WorkerFigures
from app.observability.figure_files import FigureFiles
from app.observability.figures import figures
from app.observability.places import claim, files
from app.observability.zeros import begin_at_zero
from tests.support.scrape import Scrape
from tests.unit.observability.forked import begin

WORKERS = 4
MODELS = 5
FULL = metrics.METRIC_FILES_FULL.name


def work(folder: Path) -> FigureFiles:
    """What a worker does of all this."""
    written = FigureFiles(claim(folder))
    models = [f"model-{number}" for number in range(MODELS)]
    begin_at_zero(models, [f"{model}/0" for model in models])
    figures.add(metrics.STREAMS, 1, "m", "native", "completed")
    for _ in range(3):
        written.write(figures)
    return written


def main(folder: Path) -> None:
    registry = CollectorRegistry()
    registry.register(WorkerFigures(folder))
    workers = [begin(partial(work, folder)) for _ in range(WORKERS)]
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
    pid, end = begin(partial(work, folder))
    found.append(Scrape(registry.collect()))
    os.write(end, b".")
    os.waitpid(pid, 0)
    full = [each.value(FULL) for each in found]
    streams = found[0].value("sluice_streams_total", model="m")
    said = {"full": full, "streams": streams, "statuses": statuses, "free_bytes": free_bytes}
    Path(sys.argv[2]).write_text(json.dumps(said))  # the workers' logs have the output


if __name__ == "__main__":
    main(Path(sys.argv[1]))
