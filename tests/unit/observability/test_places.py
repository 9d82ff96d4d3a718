"""A place is one living process's: its end, of whatever kind, frees it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from app.observability.places import claim, clear, files, is_held
from tests.support.launched import HOME

HOLD = "import sys, time; from pathlib import Path; from app.observability.places import claim; "
HOLD += "print(claim(Path(sys.argv[1])).number, flush=True); time.sleep(60)"


def holder(folder: Path) -> subprocess.Popen[str]:
    """A process that holds a place."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, cwd=HOME, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdigit()
    return process


def test_each_claim_gets_a_place_of_its_own(tmp_path: Path) -> None:
    assert [claim(tmp_path).number for _ in range(3)] == [1, 2, 3]


def test_a_place_that_was_never_claimed_is_not_held(tmp_path: Path) -> None:
    assert not is_held(tmp_path, 1)


def test_the_place_of_a_killed_process_is_the_next_ones(tmp_path: Path) -> None:
    with holder(tmp_path) as first, holder(tmp_path) as second:
        assert is_held(tmp_path, 1)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert (is_held(tmp_path, 1), is_held(tmp_path, 2)) == (False, True)
        assert claim(tmp_path).number == 1
        second.kill()


def test_looking_at_a_place_does_not_free_it(tmp_path: Path) -> None:
    mine = claim(tmp_path)
    for _ in range(3):
        assert is_held(tmp_path, mine.number)
    assert claim(tmp_path).number == 2


def test_files_that_nobody_holds_are_cleared(tmp_path: Path) -> None:
    held = claim(tmp_path)
    left, others = tmp_path / "counter_7.db", tmp_path / "customers_7.db"
    for file in (left, others, held.file("counter")):
        file.touch()
    (tmp_path / "place-7.full").touch()
    held.set_full(True)
    clear(tmp_path)
    assert not left.exists()
    assert [mark.name for mark in tmp_path.glob("*.full")] == ["place-1.full"]
    assert held.file("counter").exists()
    assert others.exists(), "somebody else's"
    os.close(held.fd)


def test_a_file_names_its_place(tmp_path: Path) -> None:
    for name in ("counter_12.db", "gauge_livesum_3.db", "something.db", "counter_x.db"):
        (tmp_path / name).touch()
    assert {file.name: number for file, number in files(tmp_path).items()} == {
        "counter_12.db": 12,
        "gauge_livesum_3.db": 3,
    }
