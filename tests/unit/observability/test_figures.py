"""Plain numbers: they add up, fall under the right bounds, and never become more series than are allowed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.observability import metrics
from app.observability.figures import OTHER, SERIES_MAX, Figures, Tally


def test_what_is_counted_adds_up_by_its_labels() -> None:
    figures = Figures()
    figures.add(metrics.HEARTBEATS)
    figures.add(metrics.HEARTBEATS, 2)
    figures.add(metrics.RESUMES, 1, "ok")
    figures.add(metrics.RESUMES, 1, "gone")
    assert figures.value(metrics.HEARTBEATS) == 3
    assert (figures.value(metrics.RESUMES, "ok"), figures.value(metrics.RESUMES, "gone")) == (1, 1)


def test_a_counter_that_somebody_else_counts_never_falls() -> None:
    figures = Figures()
    for total in (3, 5, 4):
        figures.reach(metrics.EVENTS, total)
    assert figures.value(metrics.EVENTS) == 5


@given(st.lists(st.floats(0, 1000)))
def test_a_tally_has_every_value_under_the_first_bound_that_is_not_below_it(values: list[float]) -> None:
    bounds = metrics.GAP.bounds
    tally = Tally(bounds)
    for value in values:
        tally.add(value)
    for index, count in enumerate(tally.counts):
        below = bounds[index - 1] if index else -1.0
        above = bounds[index] if index < len(bounds) else float("inf")
        assert count == sum(below < value <= above for value in values)
    assert tally.total == pytest.approx(sum(values))


def test_the_values_of_a_label_are_those_that_are_allowed_and_other() -> None:
    figures = Figures()
    figures.allow("model", ["known"])
    for number in range(5000):
        figures.add(metrics.COST, 1, f"junk-{number}")
        figures.observe(metrics.STREAM_SECONDS, 1, f"junk-{number}")
    figures.add(metrics.COST, 1, "known")
    assert figures.counts == {(metrics.COST.name, OTHER): 5000, (metrics.COST.name, "known"): 1}
    assert figures.value(metrics.STREAM_SECONDS, OTHER) == 5000


def test_a_metric_has_a_bounded_number_of_series_whatever_its_callers_do() -> None:
    figures = Figures()
    for number in range(SERIES_MAX + 100):
        figures.add(metrics.REFUSED, 1, f"code-{number}")
    assert len(figures.counts) == SERIES_MAX + 1
    assert figures.value(metrics.REFUSED, OTHER) == 100


def test_a_value_that_is_allowed_later_is_counted_by_its_name_from_then_on() -> None:
    figures = Figures()
    figures.allow("tenant", [])
    for _ in range(2):
        figures.add(metrics.TENANT_STREAMS, 1, "acme", "completed")
    figures.allow("tenant", ["acme"])
    figures.add(metrics.TENANT_STREAMS, 1, "acme", "completed")
    assert figures.value(metrics.TENANT_STREAMS, OTHER, "completed") == 2
    assert figures.value(metrics.TENANT_STREAMS, "acme", "completed") == 1


def test_what_is_remembered_of_names_without_a_series_is_bounded() -> None:
    figures = Figures()
    figures.allow("tenant", [])
    for number in range(SERIES_MAX + 100):
        figures.add(metrics.TENANT_STREAMS, 1, f"tenant-{number}", "completed")
    assert len(figures._instead) <= SERIES_MAX
    assert figures.counts == {(metrics.TENANT_STREAMS.name, OTHER, "completed"): SERIES_MAX + 100}
