"""Whatever bounds or scales by streams follows deploy/capacity.json: tried on a copy of all of it with another number.

The numbers put there are primes and what follows from them: nobody has these by chance.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from app.capacity import FILE, capacity
from loadtests.capacity.limits import hpa_target, nginx_streams_max
from tests.support.launched import HOME

STREAMS, WORKERS, UTILISATION = 7919, 3, 0.61
POD = STREAMS * WORKERS
TARGET = hpa_target(POD, UTILISATION)
NGINX = nginx_streams_max(POD)
PROGRAM_SECONDS_MAX = 120
LEFT = shutil.ignore_patterns(
    *(".git", ".venv", ".tools", ".*_cache", ".hypothesis", "__pycache__", "node_modules", "var", "build")
)
# Written by `make generate`: manifests and rules say so, dashboards and capacity.json itself are JSON.
GENERATED = re.compile(r"\A# Written by `make generate`|\A\{")


class Copy(NamedTuple):
    """The repository with another capacity.json, after `make generate`."""

    home: Path

    def text(self, path: str) -> str:
        return (self.home / path).read_text()

    def documents(self, path: str) -> list[Any]:
        return [document for document in yaml.safe_load_all(self.text(path)) if document]

    def run(self, *words: str, **environment: str) -> str:
        """What a program of the copy says."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.home,
            env=ours | {"PYTHONPATH": str(self.home), "PYTHONDONTWRITEBYTECODE": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=PROGRAM_SECONDS_MAX,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    home = tmp_path_factory.mktemp("copy") / "sluice"
    shutil.copytree(HOME, home, ignore=LEFT, symlinks=True)
    document = json.loads(FILE.read_text()) | {
        "streams_per_worker": STREAMS,
        "workers_per_pod": WORKERS,
        "streams_per_pod": POD,
        "utilisation_target": UTILISATION,
        "admission_streams_per_worker": STREAMS,
        "hpa_target_streams_per_pod": TARGET,
        "nginx_streams_max": NGINX,
    }
    (home / FILE.relative_to(HOME)).write_text(json.dumps(document))
    made = Copy(home)
    made.run("-m", "scripts.generate")
    return made


def test_a_worker_admits_what_was_measured(copy: Copy) -> None:
    said = copy.run("-c", "from app.settings import load_settings; print(load_settings().streams_max)")

    assert int(said) == STREAMS


def test_nginx_of_a_pod_and_of_compose_lets_the_measured_share_through(copy: Copy, tmp_path: Path) -> None:
    """Both run this program, with one more worker here than was measured: its limit grows with them."""
    prefix = tmp_path / "nginx"
    words = ("-m", "deploy.pod_nginx", str(copy.home / "nginx"), str(prefix), "0.0.0.0:8080")
    copy.run(*words, WORKERS=str(WORKERS + 1), SLUICE_SOCKET_DIR=str(tmp_path), SLUICE_STATE_DIR=str(tmp_path))

    limits = "\n".join(path.read_text() for path in prefix.rglob("*location-limits*"))
    assert f"limit_conn sluice_streams {NGINX // WORKERS * (WORKERS + 1)};" in limits


def test_compose_and_the_units_leave_the_number_to_the_file(copy: Copy) -> None:
    compose = copy.documents("deploy/compose.yaml")[0]
    units = "".join(path.read_text() for path in (copy.home / "deploy/systemd").iterdir())

    assert all("STREAMS_MAX" not in str(service.get("environment", {})) for service in compose["services"].values())
    assert "STREAMS_MAX" not in units
    # The image has it, though data is left out of images otherwise.
    assert "!deploy/capacity.json" in copy.text(".dockerignore").splitlines()


def test_the_autoscalers_add_pods_at_the_measured_target(copy: Copy) -> None:
    (hpa,) = copy.documents("k8s/components/autoscaling-hpa/target.yaml")
    scaled = copy.documents("k8s/components/autoscaling-keda/scaledobject.yaml")

    targets = {
        metric["external"]["metric"]["name"]: metric["external"]["target"].get("averageValue")
        for metric in hpa["spec"]["metrics"]
    }
    (triggers,) = [document["spec"]["triggers"] for document in scaled if document["kind"] == "ScaledObject"]
    thresholds = [
        trigger["metadata"]["threshold"]
        for trigger in triggers
        if trigger["metadata"]["query"].startswith("sum(sluice_active_streams")
    ]
    assert targets["sluice_streams_serving"] == str(TARGET)
    # What a reviewer sees of it, made by the same command.
    assert f'averageValue: "{TARGET}"' in copy.text("k8s/tests/golden/production.yaml")
    assert thresholds == [str(TARGET)]


def test_a_pod_asks_for_what_the_measured_streams_take(copy: Copy) -> None:
    before = yaml.safe_load((HOME / "k8s/base/size.yaml").read_text())
    (after,) = copy.documents("k8s/base/size.yaml")

    def millicores(document: dict[str, Any], name: str) -> int:
        for container in [
            *document["spec"]["template"]["spec"].get("initContainers", []),
            *document["spec"]["template"]["spec"]["containers"],
        ]:
            if container["name"] == name:
                return int(container["resources"]["requests"]["cpu"].removesuffix("m"))
        raise AssertionError(name)

    for name in ("app", "nginx"):
        grown = millicores(after, name) / millicores(before, name)
        assert grown == pytest.approx(POD / capacity().streams_per_pod, rel=0.1)


def test_the_dashboard_draws_the_measured_lines(copy: Copy) -> None:
    text = copy.text("deploy/grafana/dashboards/capacity.json")
    expressions = [
        target["expr"]
        for panel in json.loads(text)["panels"]
        for target in panel.get("targets", [])
        if panel.get("title") == "Streams against capacity"
    ]

    assert any(expression.startswith(f"{STREAMS} * sum(sluice_workers") for expression in expressions)
    assert any(expression.startswith(f"{TARGET} * count(") for expression in expressions)
    assert str(UTILISATION) in text


def test_the_alert_fires_above_the_measured_number(copy: Copy) -> None:
    plain = copy.documents("deploy/prometheus/rules/alerts.yaml")[0]
    (operators,) = copy.documents("k8s/components/monitoring/prometheusrule.yaml")

    for groups in (plain["groups"], operators["spec"]["groups"]):
        rules = [rule for group in groups for rule in group["rules"]]
        (alert,) = [rule for rule in rules if rule.get("alert") == "SluiceCapacityExceeded"]
        assert f"({STREAMS} * sum by (namespace, job) (sluice_workers)) > 1" in alert["expr"]
        assert f"the {STREAMS} streams a worker" in alert["annotations"]["description"]


def test_the_plan_counts_pods_by_the_measured_number(copy: Copy) -> None:
    plan = copy.run("-m", "loadtests.capacity.plan", "--streams", str(10 * TARGET))

    assert f"| replicas | ⌈streams / {TARGET}⌉" in plan
    assert f"averageValue: {TARGET}" in plan
    assert f"SLUICE_STREAMS_MAX: {STREAMS}" in plan
    assert f"SLUICE_EDGE_STREAMS_MAX: {NGINX}" in plan


def at(document: Any, path: str) -> Any:
    """What a manifest has at a path such as spec.metrics[0].type."""
    for name in re.findall(r"[^.\[\]]+", path):
        document = document[int(name) if name.isdigit() else name]
    return document


def test_the_plan_names_the_places_where_the_autoscalers_have_the_target(copy: Copy) -> None:
    said = re.search(r"# HPA: (\S+); KEDA: (\S+)", copy.run("-m", "loadtests.capacity.plan", "--streams", "1"))
    (hpa,) = copy.documents("k8s/components/autoscaling-hpa/target.yaml")
    (keda,) = [
        document
        for document in copy.documents("k8s/components/autoscaling-keda/scaledobject.yaml")
        if document["kind"] == "ScaledObject"
    ]

    assert said is not None
    assert (at(hpa, said[1]), at(keda, said[2])) == (str(TARGET), str(TARGET))


def test_readme_tells_the_measured_number(copy: Copy) -> None:
    assert f"| **{STREAMS}** |" in copy.text("README.md")


def test_nobody_else_holds_the_number() -> None:
    """Whatever runs or is deployed says nothing of so many streams, unless it is generated."""
    known = capacity()
    numbers = (
        known.streams_per_worker,
        known.streams_per_pod,
        known.hpa_target_streams_per_pod,
        known.nginx_streams_max,
    )
    number = rf"\b(?:{'|'.join(map(str, numbers))})\b(?! s\b)"  # a number of seconds is none of streams
    held = re.compile(rf"(?i){number} (?:\w+ )?streams|streams?\w*\W{{1,4}}{number}")
    found = [
        f"{path.relative_to(HOME)}:{at}: {line.strip()}"
        for folder in ("app", "deploy", "k8s", "nginx", "scripts")
        for path in sorted((HOME / folder).rglob("*"))
        if path.suffix in {".py", ".yaml", ".conf", ".template", ".json", ".service", ".sh"} and path != FILE
        if not GENERATED.match(text := path.read_text()) and "test" not in path.parts[-2]
        for at, line in enumerate(text.splitlines(), 1)
        if held.search(line)
    ]

    assert found == []
