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


def _fired() -> Iterator[dict[str, str]]:
    """The labels of each alert that a case expects to fire."""
    for path in CASES:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for expected in case.get("alert_rule_test", []):
                for alert in expected["exp_alerts"]:
                    yield {"alertname": expected["alertname"], **alert["exp_labels"]}
            for expected in case.get("promql_expr_test", []):
                for sample in expected["exp_samples"]:
                    for labels in _alerts_in(sample["labels"]):
                        if labels.get("alertstate") == "firing":
                            yield labels


def _alerts_in(text: str) -> list[dict[str, str]]:
    """Sets of labels, by whatever a program writes them, that are an alert's."""
    found = (dict(re.findall(r'(\w+)="([^"]*)"', each)) for each in re.findall(r"\{[^{}]*\}", text))
    return [labels for labels in found if "alertname" in labels]


def _rule_of(labels: dict[str, Any]) -> tuple[str, str]:
    """An objective has a rule for each of its windows."""
    return labels["alertname"], labels.get("window", "")


EACH_ALERT = {_rule_of({"alertname": rule["alert"], **rule["labels"]}) for rule in each_rule() if "alert" in rule}


def test_every_alert_of_every_window_has_been_seen_to_fire() -> None:
    assert {_rule_of(labels) for labels in _fired()} == EACH_ALERT
    assert not [labels for labels in _fired() if _is_short(labels)]


def _is_short(labels: dict[str, str]) -> bool:
    """Whether it is of a series that a case has just short of firing."""
    return any(value.startswith(("boundary", "under")) for value in labels.values())


def _loosened(rule: dict[str, Any]) -> dict[str, Any]:
    """The same with a threshold a little lower, or looking back a little longer, or a little less patient."""
    expression = re.sub(r"> ([\d.]+) \* 0", lambda found: f"> {0.9 * float(found[1]):g} * 0", rule["expr"])
    expression = re.sub(r"> (1|0\.\d+)$", lambda found: f"> {0.97 * float(found[1]):g}", expression.strip())
    expression = expression.replace("< 14 * 86400", "< 14.1 * 86400").replace("[15m]", "[20m]")
    loosened = rule | {"expr": expression}
    if "window" not in rule.get("labels", {}) and (held := re.fullmatch(r"(\d+)m", rule.get("for", ""))):
        minutes = int(held[1])
        loosened["for"] = f"{minutes - (2 if minutes >= 10 else 1)}m"
    return loosened


def test_every_alert_of_every_window_has_been_seen_to_be_silent_only_just_short_of_firing(folder: Path) -> None:
    """With rules that are hardly looser, what the cases have just short of firing does fire."""
    for path in (folder / "rules").iterdir():
        document = yaml.safe_load(path.read_text())
        for group in document["groups"]:
            group["rules"] = [_loosened(rule) if "alert" in rule else rule for rule in group["rules"]]
        path.write_text(yaml.safe_dump(document))
    said = "".join(promtool("test", "rules", f"tests/{case.name}", cwd=folder).stderr for case in CASES)
    fired = {_rule_of(labels) for labels in _alerts_in(said) if _is_short(labels)}
    # Of nothing there is no series to be named: it is silent one minute before it fires.
    if re.search(r"alertname: SluiceTargetAbsent, time: 1m,\s+exp:\[\],\s+got:\[\s+0:", said):
        fired.add(("SluiceTargetAbsent", ""))

    assert EACH_ALERT - fired == set()


def test_no_other_rules_lie_beside_them() -> None:
    assert {path.name for path in (SOURCE / "rules").iterdir()} == set(RULES)


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
