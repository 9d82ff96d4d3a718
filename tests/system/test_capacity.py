"""`make capacity` in little, on a server whose limit is known: number, verdict, files; and a ratio of costs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema

from app.capacity import FILE
from tests.support.chain import HOME

LIMIT = 12
# Of CPU a token, to Uvicorn with StreamingResponse and httpx: 0.8 where this was written. A machine that is busy moves
# both alike.
COST_RATIO_MAX = 1.6


def run(*words: str, seconds: float, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", *words]
    env = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")} | environment
    return subprocess.run(command, cwd=HOME, env=env, capture_output=True, text=True, timeout=seconds, check=False)


def test_a_limit_that_nginx_was_given_is_found_and_told_by_the_schema(tmp_path: Path) -> None:
    """Streams above the limit get 429, so the boundary does not depend on how busy the machine is; the verdict does."""
    output = tmp_path / "capacity.json"
    words = ("--profile", "smoke", "--streams-min", "8", "--streams-max", "32", "--repetitions", "1")
    seconds = (
        "--seconds",
        "1.5",
        "--confirm-seconds",
        "2",
        "--output",
        str(output),
        "--state",
        str(tmp_path / "state"),
    )
    done = run("loadtests.capacity", *words, *seconds, seconds=110, SLUICE_EDGE_STREAMS_MAX=str(LIMIT))

    assert (tmp_path / "state" / "capacity.json").exists(), done.stderr
    document = json.loads((tmp_path / "state" / "capacity.json").read_text())
    jsonschema.Draft202012Validator(json.loads(FILE.with_name("capacity.schema.json").read_text())).validate(document)
    assert document["knee"]["objectives"] in {LIMIT, LIMIT + 1}, done.stdout
    assert document["streams_per_worker"] <= LIMIT + 1
    assert document["cpu_us_per_token"] > 0
    valid = document["verdict"]["valid"]
    assert done.returncode == (0 if valid else 1)
    assert done.stdout.splitlines()[0].endswith(": VALID" if valid else ": INVALID")
    assert output.exists() is valid
    assert "<h1 class=" in (tmp_path / "state" / "report.html").read_text()
    records = list((tmp_path / "state").glob("nginx-closed-16-1.jsonl"))
    assert any(json.loads(line)["outcome"] == "http_429" for file in records for line in file.read_text().splitlines())


def test_a_token_costs_little_more_than_in_what_people_write_without_any_of_it(tmp_path: Path) -> None:
    words = (
        "--only",
        "sluice",
        "plain",
        "--profile",
        "smoke",
        "--streams",
        "24",
        "--streams-max",
        "0",
        "--seconds",
        "3",
    )
    done = run("loadtests.compare", *words, "--no-write", "--state", str(tmp_path), seconds=110)

    assert (tmp_path / "comparison.json").exists(), done.stderr
    ours, theirs = json.loads((tmp_path / "comparison.json").read_text())["systems"]
    assert ours["cpu_us_per_token"] <= COST_RATIO_MAX * theirs["cpu_us_per_token"], done.stdout
