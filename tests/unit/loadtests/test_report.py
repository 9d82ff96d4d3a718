"""The table that people read and the JSON that programs read."""

import json
from pathlib import Path

import pytest

from loadtests.bench.__main__ import read_options
from loadtests.bench.report import HEADINGS, markdown, write
from tests.unit.loadtests.rows import figures, origin_row, sluice_row, unseen_row, yardstick_row


def cells(text: str, name: str) -> dict[str, str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} "))
    return dict(zip(HEADINGS, (cell.strip() for cell in line.strip("|").split("|")), strict=True))


def test_the_table_shows_each_figure_under_its_heading() -> None:
    row = cells(markdown("title", [origin_row(), yardstick_row(), sluice_row()]), "Sluice")

    assert row == {
        "": "Sluice",
        "streams": "200",
        "CPU µs/token": "52.2",
        "× NGINX alone": "2.6",
        "NGINX µs/token": "–",
        "Redis µs/token": "–",
        "TTFT p50 / p99 ms": "2.75 / 6.00",
        "added TTFT p50 ms": "2.25",
        "gap p50 / p99 / p99.9 ms": "50.00 / 51.25 / 54.00",
        "delay p50 / p99 ms": "0.10 / 0.40",
        "stalled %": "0.2",
        "KiB/stream": "40.5",
        "NGINX KiB/stream": "–",
        "errors": "0",
    }


def test_what_a_token_costs_in_nginx_and_in_redis_stand_apart() -> None:
    both = sluice_row(nginx_cpu_us_per_token=23.0, redis_cpu_us_per_token=19.5)
    row = cells(markdown("title", [both]), "Sluice")

    assert (row["NGINX µs/token"], row["Redis µs/token"]) == ("23.0", "19.5")


def test_the_origin_adds_nothing_to_itself() -> None:
    assert cells(markdown("title", [origin_row()]), "origin, no gateway")["added TTFT p50 ms"] == "–"


def test_a_row_that_is_not_valid_says_so_under_the_table() -> None:
    text = markdown("title", [sluice_row(figures=figures(truncated=3))])

    assert cells(text, "Sluice")["errors"] == "3"
    assert "Not valid: Sluice, 200 streams: 3 × truncated." in text


def test_figures_are_left_for_readme_under_a_name_and_nowhere_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert [read_options(words).write for words in ([], ["--write"], ["--write", "all-on"])] == [
        None,
        "costs",
        "all-on",
    ]
    for name in ("../costs", "Costs", ""):
        with pytest.raises(SystemExit):
            read_options(["--write", name])
        assert f"{name!r} is no name of small letters" in capsys.readouterr().err


def test_the_table_and_the_json_are_left_in_the_folder(tmp_path: Path) -> None:
    text = write(tmp_path, "title", "the command", [origin_row(), sluice_row(figures=figures(tokens=1))])
    document = json.loads((tmp_path / "bench.json").read_text())

    assert (tmp_path / "bench.md").read_text() == text
    assert [row["system"] for row in document["rows"]] == ["origin", "sluice"]
    assert document["rows"][0]["figures"]["gap_ms"]["p999"] == 54.0
    assert document["rows"][1]["faults"] == ["0.0 % of the tokens offered arrived, 98 % are due"]


def test_what_figures_and_lines_cost_is_told_under_the_table_and_to_programs(tmp_path: Path) -> None:
    text = write(tmp_path, "title", "the command", [sluice_row(), unseen_row(gunicorn_cpu_us_per_token=43.5)])
    document = json.loads((tmp_path / "bench.json").read_text())

    assert "Figures and lines take 8.8 µs of a token at 200 streams." in text
    assert [row["seen_us_per_token"] for row in document["rows"]] == [8.75, None]
