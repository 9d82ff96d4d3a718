"""What a window says of the streams in it."""

import numpy as np
import pytest

from loadtests.capacity.point import percentiles
from loadtests.capacity.records import Kept, Record, kept
from tests.unit.loadtests.capacity.points import CHAT


def record(scheduled: float = 1000, first: float | None = 1010, ended: float | None = 6000, gap: float | None = 55,
           outcome: str = "finished") -> Record:  # fmt: skip
    return Record(scheduled, scheduled + 1, ended, first, gap, 100, outcome)


def test_the_first_token_counts_from_when_the_stream_was_due() -> None:
    assert record(scheduled=1000, first=1101).ttft_ms == 101
    assert kept([record(first=1101)], CHAT, 10_000)["ttft"] == Kept(0, 1)
    assert kept([record(first=1100)], CHAT, 10_000)["ttft"] == Kept(1, 1)


def test_a_stream_that_never_spoke_was_late() -> None:
    assert kept([record(first=None, gap=None, ended=None, outcome="open")], CHAT, 10_000)["ttft"] == Kept(0, 1)


def test_a_stream_that_was_due_too_late_or_too_early_to_be_judged_is_not() -> None:
    begun = kept([record(scheduled=9_950, first=None), record(scheduled=-20, first=500)], CHAT, 10_000)["ttft"]

    assert begun == Kept(0, 0)
    assert begun.share == 1


def test_a_pause_is_the_stream_s_longest_gap() -> None:
    assert kept([record(gap=100), record(gap=101), record(gap=None)], CHAT, 10_000)["gap"] == Kept(1, 2)


def test_every_end_but_a_finished_one_is_incomplete_and_an_open_stream_is_not_judged() -> None:
    outcomes = ["finished", "truncated", "http_503", "failed", "open"]

    assert kept([record(outcome=outcome) for outcome in outcomes], CHAT, 10_000)["complete"] == Kept(1, 4)


def test_percentiles_are_those_of_a_distribution_that_is_known() -> None:
    """Of 0 to 1000, one each, in any order, p% lie below 10 p; and those of many values draw near their law's."""
    values = np.random.default_rng(1).permutation(1001).astype(float)
    exponential = np.random.default_rng(1).exponential(10, 200_000)

    assert percentiles(list(values)) == pytest.approx({"p50": 500, "p95": 950, "p99": 990})
    assert percentiles(list(exponential)) == pytest.approx(
        {f"p{share}": -10 * np.log(1 - share / 100) for share in (50, 95, 99)}, rel=0.02
    )


def test_of_a_stream_that_an_edge_of_the_window_cuts_counts_what_lies_within() -> None:
    seconds = [
        (record(scheduled=999, ended=6000), 5000),
        (record(scheduled=-2001, ended=6000), 6000),
        (record(scheduled=3999, ended=None, outcome="open"), 6000),
        (record(scheduled=-2001, ended=None, outcome="open"), 10_000),
    ]

    for each, expected in seconds:
        assert each.milliseconds_within(10_000) == expected


def test_a_percentile_that_ten_values_would_decide_is_not_told() -> None:
    assert set(percentiles([1.0] * 999)) == {"p50", "p95"}
    assert set(percentiles([1.0] * 199)) == {"p50"}
    assert percentiles([]) == {}
