"""What is declared can be told apart, is named as Prometheus wants it, and has buckets that objectives can use."""

import re

import pytest

from app.observability.metrics import ALL, LABELS, OUTCOMES, Declared
from app.streams.outcome import OURS, outcome_of_code

UNITS = ("_seconds", "_bytes", "_total")


@pytest.mark.parametrize("metric", ALL.values(), ids=lambda metric: metric.name)
def test_a_metric_is_named_and_described(metric: Declared) -> None:
    assert re.fullmatch(r"sluice_[a-z][a-z_]*[a-z]", metric.name)
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    assert metric.help.endswith(".")
    assert set(metric.labels) <= LABELS.keys()


@pytest.mark.parametrize("metric", [metric for metric in ALL.values() if metric.kind == "histogram"])
def test_a_histogram_has_a_unit_and_rising_bounds_with_a_reason(metric: Declared) -> None:
    assert metric.name.endswith((*UNITS, "_events"))
    bounds = metric.buckets.bounds
    assert list(bounds) == sorted(set(bounds))
    assert len(metric.buckets.reason) > 20


def test_every_label_that_is_described_is_used() -> None:
    assert {label for metric in ALL.values() for label in metric.labels} == LABELS.keys()


def test_every_outcome_is_described() -> None:
    assert OUTCOMES.keys() >= OURS
    for code in ("cancelled", "upstream_error", "upstream_stalled", "draining", "log_full", "never heard of"):
        assert outcome_of_code(code) in OUTCOMES
