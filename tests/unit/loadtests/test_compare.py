"""The comparison's table, and README's figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.capacity import FILE
from loadtests.compare import table
from loadtests.compare.table import markdown, ratio
from scripts import figures_reference


def system(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "system": name,
        "name": name,
        "cpu_us_per_token": 60.0,
        "kib_per_stream": 40.0,
        "added_ttft_p50_ms": 2.0,
        "streams_carried": 400.0,
        "streams_told": "fewer than 8",
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
        system("litellm", cpu_us_per_token=780.0, streams_carried=None, added_ttft_p50_ms=None),
        system("nginx", cpu_us_per_token=30.0, streams_carried=1200.0),
    ],
}


def test_each_system_is_told_with_its_ratio_to_the_first() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown(DOCUMENT).splitlines()[2:5]]

    assert rows == [
        ["sluice", "60", "1.00", "2.0", "40", "400", "1.00"],
        ["litellm 1.2.3", "780", "13.00", "–", "40", "fewer than 8", "–"],
        ["nginx", "30", "0.50", "2.0", "40", "1200", "3.00"],
    ]


def test_nothing_has_a_ratio_to_nothing() -> None:
    assert (ratio(None, 5), ratio(5, None), ratio(5, 0), ratio(5, 2)) == ("–", "–", "–", "2.50")


def test_readme_shows_the_comparison_once_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "comparison.json"
    monkeypatch.setattr(figures_reference, "COMPARISON", file)
    assert figures_reference.comparison_table().startswith("Not measured yet: `make compare`")

    file.write_text(json.dumps(DOCUMENT))
    assert "| litellm 1.2.3 | 780 | 13.00 |" in figures_reference.comparison_table()
    assert table.FILE.parent.name == "loadtests"


def test_readme_says_whether_the_number_is_a_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads(FILE.read_text())
    file = tmp_path / "capacity.json"
    monkeypatch.setattr(figures_reference, "CAPACITY", file)

    file.write_text(json.dumps(document | {"status": "measured", "streams_per_worker": 417}))
    assert "**417**" in figures_reference.capacity_table()
    assert "Measured by `" in figures_reference.capacity_table()

    file.write_text(json.dumps(document | {"status": "provisional"}))
    assert "An estimate, not yet a measurement" in figures_reference.capacity_table()
