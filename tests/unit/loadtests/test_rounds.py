"""Which round stands for a row."""

import pytest

from loadtests.bench.__main__ import read_options
from loadtests.bench.figures import Percentiles
from loadtests.bench.measurement import Row
from loadtests.bench.report import markdown
from loadtests.bench.rounds import middle
from loadtests.bench.verdict import faults
from tests.unit.loadtests.rows import figures, origin_row, sluice_row, yardstick_row


def costing(us: float) -> Row:
    return sluice_row(gunicorn_cpu_us_per_token=us)


DISTURBED = sluice_row(gunicorn_cpu_us_per_token=1.0, neighbours_percent=19.0)


def test_one_round_is_the_row_itself() -> None:
    assert middle([DISTURBED]) == DISTURBED
    assert "52.2 |" in markdown("title", [middle([sluice_row()])])


def test_the_middle_one_by_cost_stands_for_all_and_says_how_far_they_were_apart() -> None:
    row = middle([costing(90.0), costing(61.5), costing(70.25), costing(80.0)])
    assert row.gunicorn_cpu_us_per_token == 70.25
    assert row.gunicorn_cpu_us_of_rounds == [61.5, 70.25, 80.0, 90.0]
    assert "| 70.2 (62 to 90) |" in markdown("title", [row])


def test_a_round_that_cannot_be_believed_is_left_out() -> None:
    row = middle([costing(90.0), DISTURBED, costing(70.0)])
    assert (row.gunicorn_cpu_us_per_token, row.gunicorn_cpu_us_of_rounds) == (70.0, [70.0, 90.0])


def test_where_half_cannot_be_believed_neither_can_the_row() -> None:
    assert faults(middle([costing(90.0), DISTURBED])) == ["others took 19 % of the gateway's core"]


def test_nginx_alone_is_told_by_its_own_cost_and_the_origin_by_its_time() -> None:
    yardsticks = [yardstick_row(nginx_cpu_us_per_token=us) for us in (30.0, 12.0, 25.0)]
    assert middle(yardsticks).nginx_cpu_us_per_token == 25.0
    origins = [origin_row(figures=figures(ttft_ms=Percentiles(600, ms, 1.5, 2.0))) for ms in (0.9, 0.4, 0.5)]
    assert middle(origins).figures.ttft_ms.p50 == 0.5
    assert "–(" not in markdown("title", [middle(yardsticks), middle(origins)]).replace(" ", "")


def test_no_rounds_at_all_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_options(["--rounds", "0"])
    assert "--rounds are above 0" in capsys.readouterr().err
