"""What operators see of a Sluice that lives through an hour's troubles in two minutes: each panel and rule has data.

A real Prometheus scrapes the whole chain while it is used, a worker is killed and all of them are replaced.
"""

import asyncio
import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import pytest

from tests.ops.test_prometheus_rules import FOREIGN, each_rule
from tests.support.chain import Chain
from tests.support.dashboards import Target, load, targets
from tests.support.log_lines import wrong_lines
from tests.support.observer import Observer
from tests.support.promql import compared, nodes, selectors
from tests.support.traffic import ENV, Traffic, catalog
from tests.support.upstream import ScriptedUpstream
from tests.support.workers import all_active_streams, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

TRAFFIC_SECONDS = 120.0
# A busy machine renders a page in a second and more, and a scrape may take no longer than what is between two.
SCRAPE_SECONDS = 2
SETTLE_SECONDS_MAX = 60.0
# What nothing here brings about, by the metric that would say so.
EMPTY = {
    "sluice_certificate_expiry_timestamp_seconds": "NGINX serves no TLS here",
}
# What is done to it here, and what that raises.
WRONG = {
    "SluiceStreamsIncomplete",
    "SluiceRequestsFail",
    "SluiceDrainExceeded",
    "SluiceUpstreamOut",
    "SluiceAdmissionSaturated",
}


@dataclass
class Run:
    """A chain that was used, and who watched it."""

    chain: Chain
    observer: Observer
    start: float
    end: float
    rounds: int


@contextmanager
def watched(folder: Path, seconds: float, rounds: int) -> Iterator[Run]:
    """A chain after so many seconds of traffic and rounds of trouble."""
    with ScriptedUpstream() as upstream:
        env = ENV | {"SLUICE_CONFIG": str(catalog(folder, upstream))}
        with Chain(env, workers=2) as chain, Observer(chain, SCRAPE_SECONDS) as observer:
            start = time.time()
            asyncio.run(Traffic(chain).run(seconds, rounds))
            yield Run(chain, observer, start, time.time(), rounds)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with watched(tmp_path_factory.mktemp("models"), TRAFFIC_SECONDS, rounds=1) as found:
        yield found


def _panels() -> list[Target]:
    return [target for board in load().values() for target in targets(board)]


def _justified(expression: str) -> bool:
    return any(name in EMPTY for name, _ in selectors(expression))


def test_every_query_of_every_panel_has_data(run: Run) -> None:
    empty = []
    for target in _panels():
        expression = target.sent()
        if run.observer.has_data(expression, run.start, run.end) == _justified(expression):
            empty.append(f"{target.board} / {target.title}: {expression}")

    assert not empty, "\n".join([f"{len(empty)} without data, or with data where none was expected:", *empty])


def test_every_rule_is_evaluated_without_an_error(run: Run) -> None:
    rules = run.observer.rules()

    assert {rule["name"] for rule in rules} >= {rule.get("alert") or rule["record"] for rule in each_rule()}
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []


def test_every_recorded_series_is_there(run: Run) -> None:
    recorded = {rule["record"] for rule in each_rule() if "record" in rule}
    empty = [name for name in recorded if not run.observer.has_data(name, run.start, run.end)]

    assert not empty


def test_every_alert_looks_at_series_that_are_there(run: Run) -> None:
    """An alert is to be silent here, so that not its whole but what it asks for must have data."""
    empty = []
    for rule in each_rule():
        for node in nodes(rule["expr"]):
            if isinstance(node, promql_parser.VectorSelector) and node.name not in (FOREIGN - {"up"}) | EMPTY.keys():
                series = promql_parser.VectorSelector.prettify(node)
                if not run.observer.has_data(series, run.start, run.end):
                    empty.append(f"{rule.get('alert') or rule['record']}: {series}")

    assert not empty


def test_every_alert_compares_series_that_find_each_other(run: Run) -> None:
    """Of two metrics whose labels differ, a comparison has no data whatever their values, and is silent for ever."""
    empty, asked = [], 0
    for rule in each_rule():
        for condition in compared(rule["expr"]) if "alert" in rule else []:
            if not {name for name, _ in selectors(condition)} & ((FOREIGN - {"up"}) | EMPTY.keys()):
                asked += 1
                if not run.observer.has_data(condition, run.start, run.end):
                    empty.append(f"{rule['alert']}: {condition}")

    assert asked > len({rule["alert"] for rule in each_rule() if "alert" in rule})
    assert not empty, "\n".join(empty)


def test_a_drain_that_was_too_short_reaches_alertmanager_with_a_runbook_that_opens(run: Run) -> None:
    def received() -> list[dict[str, Any]]:
        found = run.observer.get(f"{run.observer.alertmanager}/api/v2/alerts")
        return [alert for alert in found if alert["labels"]["alertname"] == "SluiceDrainExceeded"]

    until(received, 30.0, "Alertmanager has the alert")
    said = received()[0]["annotations"]
    # Prometheus names itself by the machine's name; here it listens on loopback alone.
    path = re.sub(r"^http://[^/]+", "", said["runbook_url"])
    with urllib.request.urlopen(f"{run.observer.prometheus}{path}", timeout=10) as answer:
        assert answer.read().startswith(b"# SluiceDrainExceeded\n")
    assert re.match(
        r"\d+ streams at 127\.0\.0\.1:\d+ still ran when the 60 s of a drain were over", said["description"]
    )


def test_what_goes_wrong_raises_its_alert_and_no_other(run: Run) -> None:
    """Upstreams were made to fail and a drain was too short; everything else is as it should be."""
    raised = {rule["name"] for rule in run.observer.rules() if rule.get("state", "inactive") != "inactive"}

    assert {"SluiceStreamsIncomplete", "SluiceRequestsFail", "SluiceDrainExceeded"} <= raised
    # Of a machine that does other things as well: loops are late, streams are slow.
    assert raised <= WRONG | {"SluiceEventLoopLag", "SluiceFirstTokenSlow", "SluiceTokensSlow", "SluiceStreamsStall"}


def test_figures_are_those_of_the_living_after_a_kill_and_a_reload(run: Run) -> None:
    observer = run.observer
    until(lambda: not any(all_active_streams(run.chain)), SETTLE_SECONDS_MAX, "all streams have ended")
    until(lambda: observer.value("sum(sluice_active_streams)") == 0, SETTLE_SECONDS_MAX, "the gauge is at 0")
    until(lambda: observer.value("sluice_workers_alive") == 2, SETTLE_SECONDS_MAX, "two workers live")

    assert observer.value("sum(sluice_active_readers)") == 0
    assert observer.value("max(sluice_draining_workers)") == 0
    # Two at the start; in each round one for the killed one, two by the reload.
    assert observer.value("sum(sluice_worker_starts_total)") == 2 + 3 * run.rounds


def test_no_counter_ever_fell(run: Run) -> None:
    """Prometheus would take it for a restart, and count everything again."""
    names = {name for target in _panels() for name, _ in selectors(target.sent()) if name.endswith("_total")}
    fell = [name for name in names if any(float(one["value"][1]) for one in run.observer.now(f"resets({name}[5m])"))]

    assert names
    assert not fell


def test_all_that_it_wrote_are_log_lines(run: Run) -> None:
    """No stack trace of a thread, no warning of a library among them, whatever was killed."""
    assert list(wrong_lines(run.chain.log)) == []


def test_make_observe_stops_with_everything_it_started(run: Run, tmp_path: Path) -> None:
    """Of its own, beside the run's."""
    with Observer(run.chain) as second:
        assert second.value("sluice_build_info") == 1
        assert second.stop() == 0

    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{second.prometheus}/-/ready", timeout=5)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{second.alertmanager}/-/ready", timeout=5)


def test_no_panel_makes_up_data() -> None:
    """`or vector(0)` would show a figure where there is none."""
    for target in _panels():
        assert not any(type(node).__name__ == "Call" and node.func.name == "vector" for node in nodes(target.sent()))
