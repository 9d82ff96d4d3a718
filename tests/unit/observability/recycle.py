"""Workers that come and go: each holds a place, counts one stream and ends, every other one by SIGKILL.

Says as JSON what a scrape after each of them showed, and those that somebody else took all the while: also while a
place is claimed, or its holder dies. A program of its own, since it forks.
"""

import json
import os
import random
import select
import signal
import sys
import traceback
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from app.observability import metrics
from app.observability.families import WorkerFigures
from app.observability.figure_files import FigureFiles
from app.observability.figures import Figures
from app.observability.places import claim
from deploy.processes import die_with
from tests.support.scrape import Scrape
from tests.unit.observability.forked import begin

AT_ONCE = 3


def work(folder: Path) -> FigureFiles:
    """What a worker does of all this."""
    files, figures = FigureFiles(claim(folder)), Figures()
    figures.add(metrics.STREAMS, 1, "m", "native", "completed")
    figures.observe(metrics.STREAM_SECONDS, 1.0, "m")
    figures.set(metrics.ACTIVE_STREAMS, 1, "false")
    figures.set(metrics.LOG_BYTES, 1)
    figures.set(metrics.LOG_AVAILABLE, 1)
    files.write(figures)
    return files


def scrape_all_the_while(folder: Path, out: int, end: int) -> None:
    """Scrape until told to stop; then say how often that was, and what was wrong."""
    scrapes, wrong = 0, []
    before = Scrape([])
    try:
        registry = CollectorRegistry()
        registry.register(WorkerFigures(folder))
        while not select.select([end], [], [], 0)[0]:
            found = Scrape(registry.collect())
            scrapes += 1
            wrong += [f"{sample} fell" for sample in found.fallen_since(before)]
            # One more than there are: a worker that has just ended had told its last.
            if found.value("sluice_active_streams") > AT_ONCE + 1 or found.value("sluice_metric_files_skipped_total"):
                wrong.append(f"{found.samples}")
            before = found
    except BaseException:
        wrong.append(traceback.format_exc())
    os.write(out, json.dumps({"scrapes": scrapes, "wrong": wrong[:10]}).encode())
    os._exit(0)


def main(folder: Path, count: int) -> None:
    said_here, said_there = os.pipe()
    end_there, end_here = os.pipe()
    parent = os.getpid()
    if os.fork() == 0:
        die_with(parent)
        os.close(end_here)
        scrape_all_the_while(folder, said_there, end_there)
    os.close(said_there)
    os.close(end_there)
    registry = CollectorRegistry()
    registry.register(WorkerFigures(folder))
    dice = random.Random(7)
    alive: list[tuple[int, int]] = []
    before: Scrape | None = None
    fallen: list[str] = []
    files_max = 0
    for number in range(count + AT_ONCE):
        if number < count:
            alive.append(begin(partial(work, folder)))
        if len(alive) > AT_ONCE or number >= count:
            pid, end = alive.pop(dice.randrange(len(alive)))
            os.kill(pid, signal.SIGKILL) if number % 2 else os.write(end, b".")
            os.close(end)
            os.waitpid(pid, 0)
        found = Scrape(registry.collect())
        assert found.value("sluice_active_streams") == len(alive)
        if before is not None:
            fallen += [str(sample) for sample in found.fallen_since(before)]
        before = found
        files_max = max(files_max, len(list(folder.iterdir())))
    assert before is not None
    total, active = before.value("sluice_streams_total"), before.value("sluice_active_streams")
    os.write(end_here, b".")
    meanwhile = json.loads(os.read(said_here, 65_536))
    figures = {"fallen": fallen, "total": total, "active": active, "files_max": files_max}
    print(json.dumps(figures | {"meanwhile": meanwhile}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
