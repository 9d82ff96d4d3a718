"""The comparison's table, and README's figures."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.capacity import FILE
from loadtests.bench.report import as_json
from loadtests.capacity.point import Point
from loadtests.compare import table
from loadtests.compare.__main__ import how_far, read_options
from loadtests.compare.table import markdown, ratio
from scripts import figures_reference
from tests.unit.loadtests.capacity.points import CHAT, SOUND, loaded
from tests.unit.loadtests.rows import origin_row, sluice_row, yardstick_row


def system(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "system": name,
        "name": name,
        "cpu_us_per_token": 60.0,
        "kib_per_stream": 40.0,
        "added_ttft_p50_ms": 2.0,
        "kept": True,
        "streams_carried": 400.0,
        "streams_told": "fewer than 8",
        "streams_more": False,
        "complaints": [],
    } | changes


DOCUMENT = {
    "measured_at": "2026-11-21T10:00:00Z",
    "machine": "two cores",
    "litellm": "1.2.3",
    "streams": 40,
    "profile": "chat",
    "systems": [
        system("sluice"),
        system("litellm", kept=False, cpu_us_per_token=780.0, streams_carried=None, added_ttft_p50_ms=None),
        system("nginx", cpu_us_per_token=30.0, streams_carried=1200.0, streams_more=True),
    ],
}


def test_each_system_is_told_with_its_ratio_to_the_first() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown(DOCUMENT).splitlines()[2:5]]

    assert rows == [
        ["sluice", "60", "1.00", "2.0", "40", "400", "1.00"],
        ["litellm 1.2.3", "780*", "13.00", "–", "40", "fewer than 8", "–"],
        ["nginx", "30", "0.50", "2.0", "40", "over 1200", "over 3.00"],
    ]


def at(streams: int, limit: float, busy_percent: float) -> Point:
    health = msgspec.structs.replace(SOUND, in_flight_mean=streams, generator_busy_percent=busy_percent)
    return msgspec.structs.replace(loaded(streams, limit), health=health)


@pytest.mark.parametrize(
    ("limit", "outside", "told"),
    [
        (300, None, (300, False)),
        (9000, "1024 streams kept every objective: raise --streams-max", (1024, True)),
        (1, "8 streams missed an objective: lower --streams-min", (None, False)),
    ],
)
def test_a_system_is_told_by_its_boundary_or_by_the_most_that_was_tried(
    limit: float, outside: str | None, told: tuple[float | None, bool]
) -> None:
    points = [at(streams, limit, 50) for streams in (8, 64, 256, 280, 300, 320, 512, 1024)]

    streams, more = how_far(points, outside, CHAT)
    assert (streams and pytest.approx(streams, rel=0.05), more) == told


def test_what_is_faster_than_the_generator_is_told_to_carry_more_than_was_tried() -> None:
    """1,024 streams seem to be missed, at which the generator had no core left."""
    points = [at(256, 700, 30), at(512, 700, 60), at(1024, 700, 99), at(768, 700, 97)]

    assert how_far(points, None, CHAT) == (512, True)


def test_the_table_says_of_which_sluice_it_is() -> None:
    known = {"sluice": "1.2.3", "commit": "abc1234", "nginx": "1.22.1"}

    assert "Sluice 1.2.3, commit abc1234; NGINX 1.22.1; two cores" in markdown(DOCUMENT | {"versions": known})
    assert "Sluice 1." not in markdown(DOCUMENT)


@pytest.mark.parametrize(
    "said",
    [
        "gateway --port {port}",
        "mine=gateway {origin}",
        "mine=gateway {port}",
        "nginx=env {port} {origin}",
        "origin=env {port} {origin}",
    ],
)
def test_a_peer_that_cannot_be_started_is_refused_with_what_it_lacks(
    said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        read_options(["--peer", said])

    assert refused.value.code == 2
    assert "argument --peer: NAME=COMMAND, a name of its own, and {port} and {origin}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (["a/b=env {port} {origin}"], "'a/b' has a '/', and names files"),
        (["mine=env 'A {port} {origin}"], 'mine: "env \'A {port} {origin}": No closing quotation'),
        (["mine=no-such-gateway {port} {origin}"], "mine: 'no-such-gateway' is no program that can be run"),
        (["mine=./README.md {port} {origin}"], "mine: './README.md' is no program that can be run"),
        (["mine=env {port} {origin}", "mine=env -i {port} {origin}"], "given twice: mine"),
    ],
    ids=["path", "quotes", "no program", "no executable", "twice"],
)
def test_what_would_only_show_when_others_are_measured_already_is_refused_first(
    said: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        read_options([word for each in said for word in ("--peer", each)])

    assert refused.value.code == 2
    assert told in capsys.readouterr().err


def test_a_peer_may_be_a_program_on_the_path_or_in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    said = ("--peer", "mine=env {port} {origin}", "--peer", "other=scripts/setup.sh {port} {origin}")

    assert [name for name, _ in read_options(said).peer] == ["mine", "other"]


def test_nothing_has_a_ratio_to_nothing() -> None:
    assert (ratio(None, 5), ratio(5, None), ratio(5, 0), ratio(5, 2)) == ("–", "–", "–", "2.50")


def test_readme_shows_the_comparison_once_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "comparison.json"
    monkeypatch.setattr(figures_reference, "COMPARISON", file)
    assert figures_reference.comparison_table().startswith("Not measured yet: `make compare`")

    file.write_text(json.dumps(DOCUMENT))
    assert "| litellm 1.2.3 | 780* | 13.00 |" in figures_reference.comparison_table()
    assert table.FILE.parent.name == "loadtests"


def test_readme_shows_what_a_token_costs_once_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_reference, "RESULTS", tmp_path)
    assert figures_reference.bench_tables().startswith("Not measured yet: `make bench ARGS=--write`")

    rows = [origin_row(), yardstick_row(), sluice_row()]
    (tmp_path / "costs.json").write_bytes(as_json("a title", "the command", rows))
    lines = figures_reference.bench_tables().splitlines()
    assert lines[3] == "| NGINX alone | 200 | – | – | 20.0 | – | 0.0 ms | 54.0 ms | 0.2 % | – |"
    assert lines[4] == "| Sluice | 200 | 52.2 | 2.6 | – | – | 2.2 ms | 54.0 ms | 0.2 % | 40.5 |"
    assert lines[-1].startswith("`the command`, ")
    assert "a title; " in lines[-1]

    (tmp_path / "more.json").write_bytes(as_json("a title", "another command", rows))
    both = figures_reference.bench_tables()
    assert both.startswith("\n".join(lines))
    assert "\n`another command`, " in both


def test_readme_says_whether_the_number_is_a_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads(FILE.read_text())
    file = tmp_path / "capacity.json"
    monkeypatch.setattr(figures_reference, "CAPACITY", file)

    file.write_text(json.dumps(document | {"status": "measured", "streams_per_worker": 417}))
    assert "**417**" in figures_reference.capacity_table()
    assert "Measured by `" in figures_reference.capacity_table()

    file.write_text(json.dumps(document | {"status": "provisional"}))
    assert "An estimate, not yet a measurement" in figures_reference.capacity_table()
