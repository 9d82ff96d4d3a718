"""The rules that Prometheus gets: what promtool says of them, and that each alert can fire and has been seen to."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.observability.metrics import ALL
from deploy.prometheus import rules
from deploy.prometheus.objectives import FILE, ObjectivesError, load
from tests.support.promql import metric_names, selectors

SOURCE = Path(rules.__file__).parent
CASES = sorted((SOURCE / "tests").glob("*.yaml"))
RULES = {name: yaml.safe_load(text) for name, text in rules.files().items()}
# What the metrics API makes of one, for the autoscaler.
DERIVED = {"sluice_streams_serving"}
# Not ours: kube-state-metrics' and Prometheus' own.
FOREIGN = {
    "up",
    "kube_horizontalpodautoscaler_status_current_replicas",
    "kube_horizontalpodautoscaler_spec_max_replicas",
    "kube_horizontalpodautoscaler_status_condition",
}


def each_rule() -> Iterator[dict[str, Any]]:
    for document in RULES.values():
        for group in document["groups"]:
            yield from group["rules"]


ALERTS = sorted({rule["alert"] for rule in each_rule() if "alert" in rule})


def promtool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing")
    return subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, timeout=100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The rules with round numbers in the place of measured ones, so that the cases' arithmetic stays true."""
    (tmp_path / "rules").mkdir()
    for name, text in rules.files(rules.numbers() | {"streams_per_worker": 100, "drain_seconds": 60}).items():
        (tmp_path / "rules" / name).write_text(text)
    shutil.copytree(SOURCE / "tests", tmp_path / "tests")
    return tmp_path


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    result = promtool("check", "rules", "--lint=all", "--lint-fatal", *(f"rules/{name}" for name in RULES), cwd=SOURCE)

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_are_silent_just_short_of_it(case: Path, folder: Path) -> None:
    result = promtool("test", "rules", f"tests/{case.name}", cwd=folder)

    assert result.returncode == 0, result.stdout + result.stderr


def _expectations() -> Iterator[tuple[str, bool, bool]]:
    """For each expectation of the cases: the alert, whether it fires, and whether one just short of it is silent."""
    for path in CASES:
        for case in yaml.safe_load(path.read_text())["tests"]:
            short = any('="boundary' in each["series"] for each in case["input_series"]) or "boundary" in case["name"]
            for expected in case.get("alert_rule_test", []):
                alerts = expected["exp_alerts"]
                yield expected["alertname"], bool(alerts), not alerts or (short and "boundary" not in str(alerts))
            for expected in case.get("promql_expr_test", []):
                samples = expected["exp_samples"]
                for name in _alertnames(expected["expr"]):
                    yield name, bool(samples), not samples or (short and "under" not in str(samples))


def _alertnames(expression: str) -> list[str]:
    return [value for _, matchers in selectors(expression) for label, value in matchers if label == "alertname"]


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_been_seen_to_fire_and_to_stay_silent_just_short_of_it(name: str) -> None:
    seen = [(fires, silent) for alert, fires, silent in _expectations() if alert == name]

    assert any(fires for fires, _ in seen), f"{name} has never been seen to fire"
    assert any(silent for _, silent in seen), f"{name} has never been seen to stay silent"


def test_no_other_rules_lie_beside_them() -> None:
    assert {path.name for path in (SOURCE / "rules").iterdir()} == set(RULES)


def test_every_window_of_an_objective_has_been_seen_to_burn() -> None:
    text = (SOURCE / "tests" / "slo.yaml").read_text()

    for burn in load().burns:
        assert f'window="{burn.long}"' in text, f"no case in which {burn.long} burns"


def test_every_alert_can_be_reached() -> None:
    """A share of errors is 1 at most: what asks for more never fires."""
    for objective in load().objectives:
        for burn in load().burns:
            assert burn.factor * objective.budget < 1, f"{objective.name} cannot burn {burn.factor} times too fast"


def test_an_objective_that_could_never_burn_is_refused(tmp_path: Path) -> None:
    document = yaml.safe_load(FILE.read_text())
    document["objectives"]["gaps"]["objective"] = 0.9
    other = tmp_path / "slo.yaml"
    other.write_text(yaml.safe_dump(document))

    with pytest.raises(ObjectivesError, match=r"gaps: 14\.4 times a budget of 0\.1 is never reached"):
        load(other)


def test_every_metric_and_label_in_a_rule_is_declared() -> None:
    recorded = {rule["record"] for rule in each_rule() if "record" in rule}
    for rule in each_rule():
        for name in metric_names(rule["expr"]) - recorded - FOREIGN:
            base = name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
            declared = ALL.get(name) or ALL.get(base)
            assert declared, f"{name} is not declared, and named by {rule.get('alert') or rule['record']}"
            assert name == declared.name or declared.kind == "histogram", f"{name}: {base} is a {declared.kind}"


def test_every_metric_that_a_document_names_is_declared() -> None:
    home = SOURCE.parents[1]
    known = {*ALL, *(f"{name}_{part}" for name in ALL for part in ("bucket", "count", "sum")), *DERIVED}
    found = set()
    for document in home.rglob("*.md"):
        if not {".venv", ".tools", "node_modules", "var"} & set(document.relative_to(home).parts):
            found |= set(re.findall(r"\bsluice_[a-z_]+\b", document.read_text()))

    assert len(found) > len(ALL)
    assert not found - known


def test_every_threshold_in_seconds_is_a_bound_of_its_histogram() -> None:
    found = 0
    for rule in each_rule():
        for name, matchers in selectors(rule["expr"]):
            for label, value in matchers:
                if label == "le":
                    found += 1
                    assert float(value) in ALL[name.removesuffix("_bucket")].buckets.bounds, f"{name} has no {value}"
    assert found >= len(load().objectives) - 2


def test_every_alert_says_what_is_wrong_how_bad_it_is_and_what_to_do() -> None:
    for rule in each_rule():
        if "alert" in rule:
            said = rule["annotations"]
            assert set(said) == {"summary", "description", "runbook_url", "dashboard_url"}
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert said["summary"].endswith(".")
            # Where the value is a count of absences or a bare 0, the labels say more.
            assert "$value" in said["description"] or "$labels" in said["description"] or "absent(" in rule["expr"]
