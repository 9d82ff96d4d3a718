"""What workers counted arrives at the exporter, whatever becomes of the workers and of their files."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from app.observability import metrics
from app.observability.families import WorkerFigures
from app.observability.figure_files import FILE_BYTES, FigureFiles, is_sound
from app.observability.figures import Figures
from app.observability.places import claim
from tests.support.launched import HOME
from tests.support.scrape import Scrape

RECYCLES = 200
FULL = "sluice_metric_files_full_total"


def exported(folder: Path, figures: WorkerFigures | None = None) -> Scrape:
    registry = CollectorRegistry()
    registry.register(figures or WorkerFigures(folder))
    return Scrape(registry.collect())


@pytest.fixture
def figures() -> Figures:
    made = Figures()
    made.add(metrics.STREAMS, 3, "m", "native", "completed")
    made.set(metrics.ACTIVE_STREAMS, 5, "false")
    for seconds in (0.001, 0.3, 100.0, 100.0):
        made.observe(metrics.STREAM_SECONDS, seconds, "m")
    return made


def test_what_is_written_is_what_is_exported(tmp_path: Path, figures: Figures) -> None:
    files = FigureFiles(claim(tmp_path))
    for _ in range(3):
        files.write(figures)  # again changes nothing
    found = exported(tmp_path)
    assert found.value("sluice_streams_total", model="m", surface="native", outcome="completed") == 3
    assert found.value("sluice_active_streams", draining="false") == 5
    assert found.value("sluice_stream_duration_seconds_count", model="m") == 4
    assert found.value("sluice_stream_duration_seconds_sum", model="m") == pytest.approx(200.301)
    assert found.value("sluice_stream_duration_seconds_bucket", le="0.32") == 2
    assert found.value("sluice_stream_duration_seconds_bucket", le="81.92") == 2
    assert found.value("sluice_stream_duration_seconds_bucket", le="163.84") == 4
    assert found.value("sluice_workers_alive") == 1


def test_the_figures_of_several_workers_are_added_up(tmp_path: Path, figures: Figures) -> None:
    for _ in range(3):
        FigureFiles(claim(tmp_path)).write(figures)
    found = exported(tmp_path)
    assert found.value("sluice_streams_total") == 9
    assert found.value("sluice_active_streams") == 15
    assert found.value("sluice_workers_alive") == 3


def test_a_dead_workers_counters_stay_and_its_gauges_go(tmp_path: Path, figures: Figures) -> None:
    place = claim(tmp_path)
    FigureFiles(place).write(figures)
    os.close(place.fd)
    found = exported(tmp_path)
    assert found.value("sluice_streams_total") == 3
    assert "sluice_active_streams" not in found.names()
    assert found.value("sluice_workers_alive") == 0
    FigureFiles(claim(tmp_path)).write(Figures())
    assert exported(tmp_path).value("sluice_streams_total") == 3


def test_a_successor_goes_on_where_the_one_before_it_stopped(tmp_path: Path, figures: Figures) -> None:
    for _ in range(3):
        place = claim(tmp_path)
        assert place.number == 1
        FigureFiles(place).write(figures)
        os.close(place.fd)
    found = exported(tmp_path)
    assert found.value("sluice_streams_total") == 9
    assert found.value("sluice_stream_duration_seconds_count") == 12
    assert found.value("sluice_metric_files") <= 4


@pytest.mark.parametrize("damage", ["cut", "noise", "nonsense", "negative"])
def test_a_damaged_file_is_left_out_counted_and_replaced(tmp_path: Path, figures: Figures, damage: str) -> None:
    first, second = claim(tmp_path), claim(tmp_path)
    FigureFiles(first).write(figures)
    FigureFiles(second).write(figures)
    file = first.file("counter")
    contents = file.read_bytes()
    noise = random.Random(1).randbytes(len(contents))
    used = len(contents).to_bytes(4, "little")
    broken = {
        "cut": contents[:100],
        "noise": noise,
        "nonsense": used + noise[4:],
        "negative": b"\xff\xff\xff\xff" + contents[4:],
    }
    file.write_bytes(broken[damage])
    registered = WorkerFigures(tmp_path)
    for scrapes in (1, 2):
        found = exported(tmp_path, registered)
        assert found.value("sluice_streams_total") == 3
        assert found.value("sluice_metric_files_skipped_total") == scrapes
    os.close(first.fd)
    again = claim(tmp_path)
    assert again.number == 1
    FigureFiles(again).write(figures)
    assert is_sound(file)
    assert exported(tmp_path, registered).value("sluice_streams_total") == 6


def test_two_hundred_workers_one_after_the_other_leave_few_files_and_no_counter_falls(tmp_path: Path) -> None:
    """As with `max_requests`, half of them killed, up to four at a time."""
    script = Path(__file__).with_name("recycle.py")
    command = [sys.executable, str(script), str(tmp_path), str(RECYCLES)]
    result = subprocess.run(
        command, cwd=HOME, env=os.environ | {"PYTHONPATH": str(HOME)}, capture_output=True, timeout=100
    )
    assert result.returncode == 0, result.stderr.decode()
    said = json.loads(result.stdout)
    assert said["fallen"] == []
    # Somebody else scraped while places were claimed and left, without a pause.
    assert said["meanwhile"]["wrong"] == []
    assert said["meanwhile"]["scrapes"] > RECYCLES / 4
    assert said["total"] == RECYCLES
    # Of up to four workers at a time: counters, histograms, and the gauges of three modes; and their locks.
    assert said["files_max"] <= 4 * (5 + 1)
    assert said["active"] == 0


def test_a_file_has_its_name_only_when_it_is_whole(
    tmp_path: Path, figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scrape that met an empty one failed altogether, or called it damaged."""
    files = FigureFiles(claim(tmp_path))
    named: list[Path] = []
    lengths: list[int] = []
    allocate = os.posix_fallocate

    def look_first(fd: int, offset: int, length: int) -> None:
        named.extend(tmp_path.glob("*.db"))
        lengths.append(length)
        allocate(fd, offset, length)
        assert [path for path in tmp_path.glob("*.db") if not path.stat().st_size] == []

    monkeypatch.setattr(os, "posix_fallocate", look_first)
    figures.gauges.clear()
    figures.tallies.clear()
    files.write(figures)
    assert lengths == [FILE_BYTES], "it was looked at"
    assert named == []
    assert exported(tmp_path).value("sluice_streams_total") == 3


def test_a_full_folder_costs_figures_and_no_worker(tmp_path: Path, figures: Figures) -> None:
    """A page of a file that cannot be had is a SIGBUS, not an error."""
    child = os.fork()
    if child == 0:
        # A file system that is full says no to the same call, by another number.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, 64 * 1024))
        files = FigureFiles(claim(tmp_path))
        files.write(figures)
        for number in range(1000):
            figures.add(metrics.REFUSED, 1, f"code-{number}")
        files.write(figures)
        files.write(figures)
        os._exit(0 if exported(tmp_path).value(FULL) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    found = exported(tmp_path)
    assert found.value("sluice_streams_total") == 3
    assert 100 < found.value("sluice_refused_total") < 1000
    assert found.value(FULL) == 0, "a worker that is gone lacks nothing"


def test_workers_beyond_a_full_tmpfs_live_and_the_exporter_counts_them(tmp_path: Path) -> None:
    """A real one, of 1 MB, in which not all of four workers find room for all of its figures."""
    script, folder, answer = Path(__file__).with_name("full_tmpfs.py"), tmp_path / "metrics", tmp_path / "said"
    folder.mkdir()
    inside = 'mount -t tmpfs -o size=1m none "$0" && exec "$@"'
    space = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*space, "sh", "-c", inside, str(folder), "true"], capture_output=True).returncode != 0:
        pytest.skip("no file systems may be mounted here")
    command = [*space, "sh", "-c", inside, str(folder), sys.executable, str(script), str(folder), str(answer)]
    result = subprocess.run(
        command, cwd=HOME, env=os.environ | {"PYTHONPATH": str(HOME)}, capture_output=True, timeout=100
    )
    assert result.returncode == 0, result.stderr.decode()
    said = json.loads(answer.read_text())
    assert said["free_bytes"] < 64 * 1024
    # At each of two scrapes; then these are gone, and a new worker has a place in which room was missing, and has some.
    assert said["full"] == [2, 4, 4]
    assert 1 <= said["streams"] < 4
    assert said["statuses"] == [0, 0, 0, 0], "none died of a page that was not there"
