"""The same as tests/system/test_observed.py for ten minutes, with trouble in each of them; and the pictures of it."""

from collections.abc import Iterator

import pytest

from deploy.grafana.draw import draw
from tests.system.test_observed import (
    Run,
    test_a_drain_that_was_too_short_reaches_alertmanager_with_a_runbook_that_opens,
    test_every_alert_compares_series_that_find_each_other,
    test_every_alert_looks_at_series_that_are_there,
    test_every_query_of_every_panel_has_data,
    test_every_recorded_series_is_there,
    test_every_rule_is_evaluated_without_an_error,
    test_figures_are_those_of_the_living_after_a_kill_and_a_reload,
    test_no_counter_ever_fell,
    watched,
)

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

TRAFFIC_SECONDS = 600.0
ROUNDS = 5

__all__ = [
    "test_a_drain_that_was_too_short_reaches_alertmanager_with_a_runbook_that_opens",
    "test_every_alert_compares_series_that_find_each_other",
    "test_every_alert_looks_at_series_that_are_there",
    "test_every_query_of_every_panel_has_data",
    "test_every_recorded_series_is_there",
    "test_every_rule_is_evaluated_without_an_error",
    "test_figures_are_those_of_the_living_after_a_kill_and_a_reload",
    "test_no_counter_ever_fell",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with watched(tmp_path_factory.mktemp("models"), TRAFFIC_SECONDS, ROUNDS) as found:
        yield found


def test_the_main_panels_can_be_drawn(run: Run) -> None:
    for path in draw(run.observer.prometheus, run.start, run.end):
        assert path.stat().st_size > 10_000, f"{path.name} shows nothing"
