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
RUN_SECONDS_MAX = 300
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
    asked = tmp_path / "asked.har"
    options = [*CHECKS, "--max-time", str(ASKING_SECONDS), "--seed", "1", "--request-timeout", "20"]
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
            *("run", f"http://127.0.0.1:{server.port}/openapi.json", *options),
            *("--header", f"Authorization: {keys.headers('caller')['Authorization']}"),
            *("--report-har-path", str(asked), "--continue-on-failure", "--no-color", "--warnings", "off"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
    )
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    assert "No issues found" in ran.stdout
    assert server.lines(level="error") == [], "nothing that was asked is a defect"
    check_reach(server.get("/openapi.json").json, asked)


def check_reach(api: dict[str, Any], asked: Path) -> None:
    """Every operation was asked, and those that are guarded by those who may and by those who may not."""
    statuses: dict[tuple[str, str], set[int]] = {}
    templates = sorted(api["paths"], key=lambda path: path.count("{"))
    for entry in json.loads(asked.read_text())["log"]["entries"]:
        path = urlsplit(entry["request"]["url"]).path
        template = next((each for each in templates if re.fullmatch(re.sub(r"{\w+}", "[^/]*", each), path)), "")
        key = (entry["request"]["method"].lower(), template)
        statuses.setdefault(key, set()).add(entry["response"]["status"])
    for path, item in api["paths"].items():
        for method, operation in item.items():
            found = statuses.get((method, path), set())
            assert found - {401}, f"{method} {path} was never asked: {found}"
            guarded = operation.get("security") and {} not in operation["security"]
            if guarded and found & {200, 202, 204}:
                assert 401 in found, f"{method} {path} was never asked without a key: {found}"
