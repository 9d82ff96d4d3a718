"""Every route is asked whatever its own schema allows, and what it does not, and answers as the schema says."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.support.api_keys import ApiKeys
from tests.support.server import AppServer

CONFIG = Path(__file__).with_name("schemathesis.toml")
# Of asking; a slower machine asks less. Starting and loading come on top.
ASKING_SECONDS = 25
RUN_SECONDS_MAX = 100
SECONDS = {
    "SLUICE_STREAM_SECONDS_MAX": "0.3",  # whatever is asked for
    "SLUICE_HEARTBEAT_SECONDS": "1",
    "SLUICE_STREAM_TTL_SECONDS": "120",
}
# DELETE stops what is being generated; what was said stays readable for as long as any stream does.
CHECKS = ["--checks", "all", "--exclude-checks", "use_after_free"]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> ApiKeys:
    return ApiKeys(tmp_path_factory.mktemp("keys"), caller="unbounded")


@pytest.fixture(scope="module")
def server(keys: ApiKeys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Closed to strangers, so that its schema says what opens it."""
    config = tmp_path_factory.mktemp("config") / "models.yaml"
    tiers: dict[str, dict[str, int]] = {"unbounded": {}, "free": {}}
    config.write_text(yaml.safe_dump({"models": {"simulator": [{"provider": "simulator"}]}, "tiers": tiers}))
    with AppServer(**SECONDS, **keys.environment, SLUICE_CONFIG=str(config)) as running:
        yield running


def test_no_request_that_can_be_thought_of_finds_an_answer_that_the_schema_does_not_know(
    server: AppServer, keys: ApiKeys, tmp_path: Path
) -> None:
    api, asked = server.get("/openapi.json").json, tmp_path / "asked.har"
    ask(server, keys, tmp_path, "--max-time", str(ASKING_SECONDS), "--report-har-path", str(asked))
    found = statuses(api, asked)
    if missing := {path for path, method in operations(api) if not found[path, method]}:
        # On a slow machine some had no turn; those get a few requests each.
        paths = [word for path in missing for word in ("--include-path", path)]
        ask(server, keys, tmp_path, "--phases", "fuzzing", "-n", "3", "--report-har-path", str(asked), *paths)
        for operation, more in statuses(api, asked).items():
            found[operation] |= more
    assert server.lines(level="error") == [], "nothing that was asked is a defect"
    for (path, method), guarded in operations(api).items():
        assert found[path, method] - {401}, f"{method} {path} was never asked"
        if guarded and found[path, method] & {200, 202, 204}:
            assert 401 in found[path, method], f"{method} {path} was never asked without a key"


def ask(server: AppServer, keys: ApiKeys, folder: Path, *options: str) -> None:
    """One run, which finds nothing."""
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
            *("run", f"http://127.0.0.1:{server.port}/openapi.json", *CHECKS, *options),
            *("--header", f"Authorization: {keys.headers('caller')['Authorization']}", "--seed", "1"),
            *("--request-timeout", "20", "--continue-on-failure", "--no-color", "--warnings", "off"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
    )
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    assert "No issues found" in ran.stdout


def operations(api: dict[str, Any]) -> dict[tuple[str, str], bool]:
    """Path and method of each, and whether it is for those alone who are known."""
    return {
        (path, method): bool(operation.get("security")) and {} not in operation["security"]
        for path, item in api["paths"].items()
        for method, operation in item.items()
    }


def statuses(api: dict[str, Any], asked: Path) -> dict[tuple[str, str], set[int]]:
    """How each operation was answered."""
    found: dict[tuple[str, str], set[int]] = {operation: set() for operation in operations(api)}
    templates = sorted(api["paths"], key=lambda path: path.count("{"))
    for entry in json.loads(asked.read_text())["log"]["entries"]:
        path = urlsplit(entry["request"]["url"]).path
        template = next((each for each in templates if re.fullmatch(re.sub(r"{\w+}", "[^/]*", each), path)), "")
        found.setdefault((template, entry["request"]["method"].lower()), set()).add(entry["response"]["status"])
    return found
