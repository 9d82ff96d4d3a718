"""Locust as people run it, in a process of its own: importing it here would patch the tests' sockets."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.launched import HOME

# Beyond the test itself: importing, spawning, stopping, on a machine that is busy.
SLACK_SECONDS = 60.0


class Run(NamedTuple):
    """What it said, and its journal."""

    exit_code: int
    output: str
    records: list[dict[str, Any]]

    def outcomes(self, scenario: str) -> set[str]:
        return {record["outcome"] for record in self.records if record["scenario"] == scenario}


def start(
    url: str, folder: Path, scenarios: Sequence[str], seconds: float, *words: str, more: str = ""
) -> "subprocess.Popen[str]":
    """Locust without a page, for so many seconds; its journal is in `folder`. `more` is another locustfile."""
    files = ",".join(["loadtests/locustfile.py", *([more] if more else [])])
    command = [
        *(sys.executable, "-m", "locust", "-f", files, *scenarios),
        *("--headless", "--only-summary", "--host", url, "-t", f"{seconds:g}s", "--records", str(folder), *words),
    ]
    return subprocess.Popen(command, cwd=HOME, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: "subprocess.Popen[str]", folder: Path, seconds: float) -> Run:
    """What came of it."""
    try:
        output, _ = process.communicate(timeout=seconds + SLACK_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"Locust did not end:\n{output}") from None
    lines = [line for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
    return Run(process.returncode, output, [json.loads(line) for line in lines])


def run(url: str, folder: Path, scenarios: Sequence[str], seconds: float, *words: str, more: str = "") -> Run:
    """Start it and wait."""
    return finish(start(url, folder, scenarios, seconds, *words, more=more), folder, seconds)
