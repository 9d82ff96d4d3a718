"""The dashboards, by the rules that Grafana's own linter has for Prometheus ones, and by some that it lacks."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
from PIL import Image

from app.capacity import capacity
from app.observability.metrics import ALL
from deploy.grafana import dashboards as source
from deploy.grafana.board import PANELS_MAX
from deploy.grafana.draw import PICTURES, SHOWN, drawn_of
from deploy.prometheus import rules
from deploy.prometheus.objectives import load as objectives
from tests.ops.test_prometheus_rules import each_rule
from tests.support.dashboards import FOLDER, Target, load, panels, targets, variables
from tests.support.promql import metric_names, nodes, parse, selectors

BOARDS = load()
UIDS = sorted(BOARDS)
RECORDED = {rule["record"] for rule in each_rule() if "record" in rule}
# Grafana's names of units; a wrong one is shown as text behind the figure.
UNITS = {"short", "s", "bytes", "percentunit", "ops", "reqps", "cps", "eps"}
# Of a counter, as exposed. What ends in these three belongs to a histogram.
PARTS = ("_bucket", "_count", "_sum")
# Not in any panel or rule, with the reason.
UNUSED: dict[str, str] = {}


@pytest.fixture(params=UIDS)
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    return BOARDS[request.param]


def _series(board: dict[str, Any]) -> Iterator[tuple[Target, str, list[tuple[str, str]]]]:
    for target in targets(board):
        for name, matchers in selectors(target.sent(job="$job", instance="$instance", namespace="$namespace")):
            yield target, name, matchers


def test_there_is_one_for_each_question_an_operator_has() -> None:
    assert UIDS == [
        "sluice-capacity",
        "sluice-nginx",
        "sluice-overview",
        "sluice-pod",
        "sluice-streaming",
        "sluice-upstreams",
    ]


def test_they_are_the_same_bytes_each_time() -> None:
    assert source.files() == {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert source.files() == source.files()


# Grafana's linter: variables


def test_the_data_source_is_a_variable(board: dict[str, Any]) -> None:
    found = [each for each in variables(board).values() if each["type"] == "datasource"]

    assert [(each["name"], each["label"], each["query"]) for each in found] == [
        ("datasource", "Data source", "prometheus")
    ]


@pytest.mark.parametrize("name", ["job", "instance"])
def test_job_and_instance_can_be_chosen_several_at_once(board: dict[str, Any], name: str) -> None:
    variable = variables(board)[name]

    assert variable["type"] == "query"
    assert variable["datasource"]["uid"] == "${datasource}"
    assert variable["label"] == name.title()
    assert variable["multi"] is True
    assert variable["includeAll"] is True
    assert variable["allValue"] == ".+"


def test_variables_ask_for_labels_of_series_that_there_are(board: dict[str, Any]) -> None:
    for name, variable in variables(board).items():
        if variable["type"] != "query":
            continue
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert found, f"{name}: {variable['query']}"
        (metric,) = metric_names(re.sub(r"\$\w+", "x", found[1]))
        declared = ALL[metric.removesuffix("_count")]
        assert found[2] in {*declared.labels, "namespace", "job", "instance"}


# Grafana's linter: panels


def test_every_panel_reads_the_data_source_that_was_chosen(board: dict[str, Any]) -> None:
    assert {panel["datasource"]["uid"] for panel in panels(board)} == {"${datasource}"}


def test_every_panel_has_a_title_and_a_description(board: dict[str, Any]) -> None:
    for panel in panels(board):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]


def test_every_panel_has_a_unit(board: dict[str, Any]) -> None:
    for panel in panels(board):
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]


# Grafana's linter: queries


def test_every_query_is_promql(board: dict[str, Any]) -> None:
    for target in targets(board):
        assert parse(target.sent())


def test_every_rate_is_over_the_interval_of_the_graph(board: dict[str, Any]) -> None:
    """A range of its own would miss scrapes when one looks at a week, and be coarse when one looks at an hour."""
    for target in targets(board):
        ranges = re.findall(r"\[([^\]]+)\]", target.expression)
        assert set(ranges) <= {"$__rate_interval"}, f"{target.title}: {ranges}"


@pytest.mark.parametrize("label", ["job", "instance"])
def test_every_series_is_narrowed_to_what_was_chosen(board: dict[str, Any], label: str) -> None:
    for target, name, matchers in _series(board):
        # Recorded over all instances, which is their point.
        if label == "instance" and name in RECORDED:
            continue
        assert (label, f"${label}") in matchers, f"{target.title}: {name}"


# Beyond it


def test_every_metric_and_label_in_a_panel_is_declared(board: dict[str, Any]) -> None:
    for target, name, matchers in _series(board):
        if name in RECORDED:
            continue
        base = name if name in ALL else re.sub(r"_(bucket|count|sum)$", "", name)
        assert base in ALL, f"{target.title}: {name} is not declared"
        assert (base != name) == (ALL[base].kind == "histogram"), f"{target.title}: {name} is a {ALL[base].kind}"
        labels = {label for label, _ in matchers} - {"namespace", "job", "instance"}
        assert labels <= {*ALL[base].labels, *(["le"] if base != name else [])}, f"{target.title}: {labels}"


def test_panels_group_only_by_labels_that_their_series_have(board: dict[str, Any]) -> None:
    for target in targets(board):
        for node in nodes(target.sent()):
            if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
                have = {"namespace", "job", "instance"}
                for name in metric_names(node.expr.prettify()):
                    base = name if name in ALL else re.sub(r"_(bucket|count|sum)$", "", name)
                    have |= {*ALL[base].labels, *(["le"] if name.endswith("_bucket") else [])}
                assert set(node.modifier.labels) <= have, f"{target.title}: {node.modifier.labels}"


def test_legends_name_only_labels_that_are_left(board: dict[str, Any]) -> None:
    for panel in panels(board):
        for target in panel["targets"]:
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                kept = f"by ({label}" in target["expr"] or f", {label}" in target["expr"] or "sluice:" in target["expr"]
                assert kept, f"{panel['title']}: no {label} in {target['expr']}"


def test_counters_are_shown_as_rates_and_gauges_are_not(board: dict[str, Any]) -> None:
    for target in targets(board):
        for node in nodes(target.sent()):
            if isinstance(node, promql_parser.Call) and node.func.name in ("rate", "increase"):
                (name,) = metric_names(node.prettify())
                assert name.endswith(("_total", *PARTS)), f"{target.title}: rate of {name}"
        bare = set(
            re.findall(r"(?<!rate\()(?<!increase\()\b(sluice_\w+(?:_total|_bucket|_count|_sum))\{", target.expression)
        )
        assert not bare, f"{target.title}: {bare} without a rate"


def test_quantiles_are_of_all_instances_together(board: dict[str, Any]) -> None:
    for target in targets(board):
        if "histogram_quantile" in target.expression:
            assert re.search(r"histogram_quantile\([\d.]+, sum by \(le", target.expression), target.title


def test_panels_do_not_lie_on_each_other_and_fill_their_rows(board: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in board["panels"]]
    for one, other in itertools.combinations(places, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, f"{one} lies on {other}"
    for _, members in itertools.groupby(places, key=lambda place: place["y"]):
        assert sum(place["w"] for place in members) == 24


def test_names_that_others_depend_on_are_unique(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    titles = [panel["title"] for panel in board["panels"]]

    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)
    assert 8 <= len(board["uid"]) <= 40
    assert len(panels(board)) <= PANELS_MAX
    assert board["editable"] is False
    assert board["schemaVersion"] >= 36


def test_no_panel_has_grafanas_unthought_threshold(board: dict[str, Any]) -> None:
    for panel in panels(board):
        steps = [step["value"] for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])]
        assert 80 not in steps, panel["title"]


def test_each_links_to_the_others_with_time_and_choice(board: dict[str, Any]) -> None:
    (link,) = board["links"]

    assert (link["type"], link["tags"]) == ("dashboards", board["tags"])
    assert link["keepTime"] is True
    assert link["includeVars"] is True


def test_deployments_and_drains_are_marked(board: dict[str, Any]) -> None:
    assert [mark["name"] for mark in board["annotations"]["list"]] == ["New version", "Workers start", "Workers drain"]


def test_every_alert_links_to_one_of_them() -> None:
    base = objectives().dashboards_url
    for rule in each_rule():
        if "alert" in rule:
            assert rule["annotations"]["dashboard_url"].removeprefix(f"{base}/") in BOARDS, rule["alert"]


def test_capacity_is_the_measured_one() -> None:
    known = capacity()
    expressions = " ".join(target.expression for target in targets(BOARDS["sluice-capacity"]))

    assert f"{known.streams_per_worker} * sum(sluice_workers" in expressions
    assert f"{known.hpa_target_streams_per_pod} * count(sluice_build_info" in expressions
    assert rules.numbers()["streams_per_worker"] == known.streams_per_worker


@pytest.mark.parametrize("name", SHOWN)
def test_a_picture_shows_what_its_dashboard_asks_for_today(name: str) -> None:
    """Else `make soak` has to draw it anew: as after each measurement of the capacity, which is a line in one."""
    with Image.open(PICTURES / f"{name}.png") as picture:
        assert picture.info.get("Description") == drawn_of(name), f"{name}.png is out of date: `make soak`"


def test_the_capacity_in_its_picture_is_the_measured_one() -> None:
    with Image.open(PICTURES / "capacity.png") as picture:
        shown = picture.info.get("Description", "")
    assert f"{capacity().streams_per_worker} * sum(" in shown
    assert f"{capacity().hpa_target_streams_per_pod} * count(" in shown


def test_every_picture_of_a_document_is_drawn_from_a_dashboard() -> None:
    assert {path.stem for path in PICTURES.iterdir()} == set(SHOWN)


def test_every_metric_is_in_a_panel_or_a_rule() -> None:
    shown = {name for board in BOARDS.values() for target in targets(board) for name in metric_names(target.sent())}
    ruled = {name for rule in each_rule() for name in metric_names(rule["expr"])}
    used = {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown | ruled} | shown | ruled

    assert ALL.keys() - used == set(UNUSED)
