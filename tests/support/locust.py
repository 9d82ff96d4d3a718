"""Locust as people run it, in a process of its own: importing it here would patch the tests' sockets."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest

from deploy.processes import die_with_parent
from tests.support.launched import HOME

# Beyond the test itself: importing, spawning, stopping, on a machine that is busy.
SLACK_SECONDS = 60.0


class Process(subprocess.Popen[str]):
    """Leaving it leaves nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill_all()
        super().__exit__(kind, error, trace)

    def kill_all(self) -> None:
        """It, if it has not ended, and the workers that it forked, which hold its output open."""
        if self.poll() is None:
            for each in [*psutil.Process(self.pid).children(recursive=True), self]:
                with suppress(psutil.NoSuchProcess):
                    each.kill()


class Run(NamedTuple):
    """What it said, its journal, its table, and how many users it had, second by second."""

    exit_code: int
    output: str
    records: list[dict[str, Any]]
    table: dict[tuple[str, str], dict[str, Any]]
    users: list[int]

    def of(self, scenario: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["scenario"] == scenario]

    def outcomes(self, scenario: str) -> set[str]:
        """Of the streams that were over before the test was."""
        return {record["outcome"] for record in self.of(scenario)} - {"open"}

    def check_verdict(self) -> None:
        """It is told, and believed by whatever ends on the exit code."""
        assert "VALID: the generator kept up" in self.output.splitlines(), self.output
        assert "INVALID" not in self.output, self.output
        assert self.exit_code == 0, self.output

    def check_table(self) -> None:
        """What Locust counted is what the journal has of each stream; of one process, which loses no last report."""
        assert self.records
        for scenario in {record["scenario"] for record in self.records}:
            records = self.of(scenario)
            started = [record for record in records if record["first_token_ms"] is not None]
            firsts = [record["first_token_ms"] - record["scheduled_ms"] for record in started]
            largest = [record["largest_gap_ms"] for record in records if record["largest_gap_ms"] is not None]
            self._check_row(scenario, "TTFT", firsts)
            self._check_row(scenario, "GAP", [gap for record in records for gap in record["gaps_ms"]])
            self._check_row(scenario, "LARGEST GAP", largest)
            self._check_row(scenario, "RESUME", [resume for record in records for resume in record["resumes_ms"]])
            self._check_row(scenario, "TOKENS", [record["tokens"] for record in records])
            for outcome in {record["outcome"] for record in records}:
                count = sum(record["outcome"] == outcome for record in records)
                assert self.table["OUTCOME", f"{scenario}: {outcome}"]["num_requests"] == count

    def _check_row(self, scenario: str, kind: str, values: Iterable[float]) -> None:
        wanted = sorted(values)
        row = self.table.get((kind, scenario))
        if row is None:
            assert not wanted, f"no row {kind} of {scenario}"
            return
        assert row["num_requests"] == len(wanted), f"{kind} of {scenario}"
        # Locust is told whole milliseconds, and keeps three digits of them in its histogram.
        assert row["total_response_time"] == pytest.approx(sum(wanted), abs=0.51 * len(wanted)), f"{kind} of {scenario}"
        buckets = sorted((int(at), count) for at, count in row["response_times"].items())
        told = np.repeat([at for at, _ in buckets], [count for _, count in buckets])
        assert told == pytest.approx(np.array(wanted), rel=0.01, abs=0.51), f"{kind} of {scenario}"


def start(
    url: str, folder: Path, scenarios: Sequence[str], seconds: float, *words: str, more: str = "", page: bool = False
) -> Process:
    """Locust for so many seconds; its journal is in `folder`. `more` is another locustfile, or several with commas."""
    shown = ["--autostart", "--autoquit", "1", "--web-host", "127.0.0.1"] if page else ["--headless"]
    about = ["--host", url, "-t", f"{seconds:g}s", "--records", str(folder)]
    return launch(scenarios, *about, *shown, *files(folder), *words, more=more)


def files(folder: Path) -> list[str]:
    """Options that leave the table and its course in `folder`."""
    return ["--only-summary", "--json-file", str(folder / "table"), "--csv", str(folder / "course")]


def launch(scenarios: Sequence[str], *words: str, more: str = "") -> Process:
    """Locust with these options."""
    locustfiles = ",".join(["loadtests/locustfile.py", *([more] if more else [])])
    return Process(
        [sys.executable, "-m", "locust", "-f", locustfiles, *scenarios, *words],
        cwd=HOME,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=die_with_parent(),  # a pytest that is killed takes it along
    )


def finish(process: Process, folder: Path, seconds: float) -> Run:
    """What came of it."""
    try:
        output, _ = process.communicate(timeout=seconds + SLACK_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill_all()
        output, _ = process.communicate()
        raise AssertionError(f"Locust did not end:\n{output}") from None
    lines = [line for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
    table, course = folder / "table.json", folder / "course_stats_history.csv"
    assert table.exists(), output
    rows = {(row["method"], row["name"]): row for row in json.loads(table.read_text())}
    users = [int(row["User Count"]) for row in csv.DictReader(course.read_text().splitlines())]
    return Run(process.returncode, output, [json.loads(line) for line in lines], rows, users)


def run(url: str, folder: Path, scenarios: Sequence[str], seconds: float, *words: str, more: str = "") -> Run:
    """Start it and wait."""
    with start(url, folder, scenarios, seconds, *words, more=more) as process:
        return finish(process, folder, seconds)
