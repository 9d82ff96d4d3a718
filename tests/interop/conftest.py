"""Writes what was tried, and with which versions, to RESULTS.md."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.launched import HOME

FOLDER = Path(__file__).parent
PACKAGES = ("xllamacpp", "langchain-openai", "langchain-anthropic")
HEAD = """# Clients and upstreams of other people's

What `make interop` saw when it last ran: all unmodified, in environments of their own. The upstream of the first rows
is llama.cpp's server with a model that is made on the spot.
"""
_passed: dict[str, tuple[str, float]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Each test's sentence."""
    if report.when == "call" and report.passed and "interop" in report.keywords:
        name, _, of = report.nodeid.rpartition("::")[2].partition("[")
        _passed[report.nodeid] = (
            f"{name.removeprefix('test_').replace('_', ' ')} | {of.removesuffix(']')}",
            report.duration,
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The table, if all went well."""
    if not _passed or session.exitstatus != pytest.ExitCode.OK or len(_passed) < session.testscollected:
        return
    rows = sorted((node, *row) for node, row in _passed.items())
    ordered = sorted(rows, key=lambda row: "llama" not in row[0])
    lines = [f"| {sentence} | {seconds:.1f} |" for _, sentence, seconds in ordered]
    table = "\n".join(["| what | by whom | seconds |", "|---|---|---:|", *lines])
    today = datetime.now(UTC).date()
    (FOLDER / "RESULTS.md").write_text(f"{HEAD}\n{today}, with {_versions()}.\n\n{table}\n", encoding="utf-8")


def _versions() -> str:
    python = HOME / ".tools/interop/bin/python"
    code = f"import importlib.metadata as m; print(', '.join(n + ' ' + m.version(n) for n in {PACKAGES!r}))"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    dependencies = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    return ", ".join([said, *(f"npm {name} {version}" for name, version in sorted(dependencies.items()))])
