"""What is declared can be told apart, is named as Prometheus wants it, and has buckets that objectives can use."""

import re

import pytest
from opentelemetry.instrumentation._semconv import HTTP_DURATION_HISTOGRAM_BUCKETS_NEW

from app.observability.metrics import ALL, DURATION, FIRST_TOKEN, GAP, LABELS, OUTCOMES, REQUEST, Buckets, Declared
from app.streams.outcome import OURS, outcome_of_code

UNITS = ("_seconds", "_bytes", "_total")
# https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/ (the HTTP one: as their own library has it)
ADVICE = {
    "gen_ai.server.time_to_first_token": (
        FIRST_TOKEN,
        (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    ),
    "gen_ai.server.time_per_output_token": (
        GAP,
        (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5),
    ),
    "gen_ai.client.operation.duration": (DURATION, tuple(0.01 * 2**doubled for doubled in range(14))),
    "http.server.request.duration": (REQUEST, HTTP_DURATION_HISTOGRAM_BUCKETS_NEW),
}


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


@pytest.mark.parametrize("name", ADVICE)
def test_a_histogram_that_follows_opentelemetrys_advice_has_all_of_its_bounds(name: str) -> None:
    """They may be more: two systems' histograms can then be compared bound by bound."""
    buckets, advised = ADVICE[name]
    assert name in buckets.reason
    assert set(advised) <= set(buckets.bounds)


def test_no_other_histogram_claims_that_advice() -> None:
    followed = {id(buckets) for buckets, _ in ADVICE.values()}
    claiming = {id(metric.buckets) for metric in ALL.values() if "OpenTelemetry's advice" in metric.buckets.reason}
    assert claiming == followed


def test_bounds_go_on_to_where_queues_and_the_longest_streams_end() -> None:
    longest: list[tuple[Buckets, float]] = [(FIRST_TOKEN, 120), (GAP, 60), (DURATION, 600)]
    for buckets, seconds in longest:
        assert buckets.bounds[-1] >= seconds


def test_every_label_that_is_described_is_used() -> None:
    assert {label for metric in ALL.values() for label in metric.labels} == LABELS.keys()


def test_every_outcome_is_described() -> None:
    assert OUTCOMES.keys() >= OURS
    for code in ("cancelled", "upstream_error", "upstream_stalled", "draining", "log_full", "never heard of"):
        assert outcome_of_code(code) in OUTCOMES
