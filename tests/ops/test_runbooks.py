"""Runbooks: one for each alert, with what somebody needs who was just woken, and nothing that is not there."""

import re
from pathlib import Path

import pytest

import app.errors
from app.observability.metrics import ALL, OUTCOMES
from app.settings import Settings
from tests.ops.test_prometheus_rules import ALERTS, FOREIGN, each_rule
from tests.support.promql import metric_names, selectors

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "runbooks"
ERRORS = Path(app.errors.__file__).read_text()
SECTIONS = ["Meaning", "Impact", "First commands", "Causes and fixes", "Is it over?"]
RECORDED = {rule["record"] for rule in each_rule() if "record" in rule}


def text(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text()


def queries(name: str) -> list[str]:
    return re.findall(r"^query '(.+)'$", text(name), re.MULTILINE)


def test_each_alert_has_one_and_none_is_left_of_an_alert_that_is_gone() -> None:
    assert sorted(path.stem for path in FOLDER.glob("Sluice*.md")) == ALERTS


@pytest.mark.parametrize("name", ALERTS)
def test_each_says_the_same_things_in_the_same_order(name: str) -> None:
    assert text(name).startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text(name), re.MULTILINE) == SECTIONS
    assert queries(name) or name == "SluiceTargetAbsent"


@pytest.mark.parametrize("name", ALERTS)
def test_every_query_in_them_asks_for_what_there_is(name: str) -> None:
    for query in queries(name):
        for metric in metric_names(query) - RECORDED - FOREIGN:
            base = metric if metric in ALL else re.sub(r"_(bucket|count|sum)$", "", metric)
            assert base in ALL, f"{query}: {metric}"
        for metric, matchers in selectors(query):
            for label, value in matchers:
                if label == "outcome" and metric == "sluice_streams_total":
                    assert set(value.split("|")) <= OUTCOMES.keys(), query


@pytest.mark.parametrize("name", [*ALERTS, "README"])
def test_every_link_in_them_leads_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", text(name)):
        assert (FOLDER / link).resolve().exists(), f"{name}: {link}"


@pytest.mark.parametrize("name", ALERTS)
def test_every_setting_and_error_in_them_is_one(name: str) -> None:
    known = {f"SLUICE_{field.upper()}" for field in Settings.model_fields}
    assert set(re.findall(r"SLUICE_[A-Z_]+", text(name))) <= known
    for code in re.findall(r"`(upstream_\w+|log_\w+|draining|overloaded)`", text(name)):
        assert f'"{code}"' in ERRORS or code in OUTCOMES, code
