"""When figures are not to be believed, and when they break a limit."""

from typing import Any

import pytest

from loadtests.bench.figures import Percentiles
from loadtests.bench.systems import ASKED_FOR
from loadtests.bench.verdict import added_ttft_ms, broken_limits, faults, seen_us
from tests.unit.loadtests.rows import figures, origin_row, sluice_row, unseen_row, yardstick_row


def test_a_sound_row_has_no_faults() -> None:
    assert faults(sluice_row()) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"truncated": 3}, "3 × truncated"),
        ({"failed": 1}, "1 × ended in an error"),
        ({"misordered": 2}, "2 × tokens lost or out of order"),
        ({"http_errors": {"503": 7}}, "7 × HTTP 503"),
        ({"tokens": 58_700}, "97.8 % of the tokens offered arrived, 98 % are due"),
    ],
)
def test_a_row_with_errors_or_too_few_tokens_is_not_valid(changes: dict[str, Any], fault: str) -> None:
    assert faults(sluice_row(figures=figures(**changes))) == [fault]


def test_a_row_from_a_saturated_generator_is_not_valid() -> None:
    assert faults(sluice_row(generator_core_busy_percent=99.2)) == ["the core of origin and load was 99 % busy"]


def test_a_row_from_a_core_that_others_used_is_not_valid() -> None:
    assert faults(sluice_row(neighbours_percent=31.0)) == ["others took 31 % of the gateway's core"]


def test_the_added_ttft_is_taken_over_the_origin_at_as_many_streams() -> None:
    slow_origin = origin_row(streams=384, figures=figures(ttft_ms=Percentiles(9, 2.0, 2.0, 2.0)))

    assert added_ttft_ms(sluice_row(), [slow_origin, origin_row(), sluice_row()]) == pytest.approx(2.25)


def test_without_the_origin_there_is_no_added_ttft() -> None:
    assert added_ttft_ms(sluice_row(), [sluice_row()]) is None


def test_a_gateway_within_the_limits_breaks_none() -> None:
    assert broken_limits([origin_row(), yardstick_row(), sluice_row(), unseen_row()]) == []


def test_each_broken_limit_is_named_with_the_figure() -> None:
    slow = sluice_row(gunicorn_cpu_us_per_token=91.0, figures=figures(ttft_ms=Percentiles(600, 4.75, 9.0, 9.0)))

    assert broken_limits([origin_row(), yardstick_row(), slow, unseen_row(gunicorn_cpu_us_per_token=86.75)]) == [
        "Sluice: 4.55 times NGINX alone for a token, at most 4.5",
        "Sluice: 4.25 ms added to TTFT p50, at most 4",
        "Sluice: 4.25 µs of a token for figures and lines, at most 4",
    ]


def test_limits_that_could_not_be_judged_count_as_broken() -> None:
    assert broken_limits([sluice_row()]) == [
        "Sluice: unknown times NGINX alone for a token, at most 4.5",
        "Sluice: unknown ms added to TTFT p50, at most 4",
        "Sluice: unknown µs of a token for figures and lines, at most 4",
    ]
    assert broken_limits([origin_row(), sluice_row(streams=384)]) == ["no gateway was measured at 200 streams"]


def test_what_figures_and_lines_cost_is_the_difference_to_a_row_of_the_same_run_without_them() -> None:
    others = [unseen_row(streams=384, gunicorn_cpu_us_per_token=1.0), origin_row(), unseen_row()]

    assert seen_us(sluice_row(), others) == 4.0
    assert seen_us(sluice_row(), [origin_row()]) is None
    assert seen_us(unseen_row(), others) is None


def test_a_run_that_names_no_systems_measures_with_and_without_them() -> None:
    assert not {"sluice", "unseen"} & set(ASKED_FOR)
