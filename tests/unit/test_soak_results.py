"""The tables of what `make soak` saw: a run of one test leaves the rows of the others."""

from pathlib import Path

import pytest

from tests.soak import results


def test_a_row_takes_the_place_of_its_like_and_of_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "TABLE", tmp_path / "RESULTS.md")
    for silence in (1.0, 2.0):
        results.row("10 reloads", {"cut": 3}, 20, 30, "", 0, silence, "+1 MB")
        results.generator_row("Locust", 600, [4.0, 5.0, silence], [50.0, 51.0, 52.0])
        results.row("a kill", {}, 1, 2, "", 0, silence, "")

    written = results.TABLE.read_text().splitlines()
    rows = [line.split(" | ") for line in written if line.startswith("| ") and not line.startswith(("| wh", "|--"))]
    assert [row[0] for row in rows] == ["| 10 reloads", "| a kill", "| Locust"]
    assert rows[0][1:10] == ["20", "30", "0", "3", "0", "0", "0", "2.0 s", "+1 MB"]
    assert rows[2][1:8] == ["600", "4.0 ms", "5.0 ms", "2.0 ms", "50.0 ms", "51.0 ms", "52.0 ms"]
    assert written.index("## Two generators on one server") > written.index("# What `make soak` saw")
    # Of each table, as many cells as its head has.
    tables = [line.count("|") for line in written if line.startswith("|---")]
    assert [len(row) + 1 for row in rows] == [tables[0], tables[0], tables[1]]
