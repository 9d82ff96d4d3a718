"""Which failures of this suite are tried again: those of time, and never those of tokens."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.journal import Journal, NotExactlyOnce, check_wrongs
from tests.support.launched import HOME

LATE = ["k: no end within 20 s: {}", "silence behind ['a']", "k s: ended with error {'code': 'log_unavailable'}"]


@pytest.mark.parametrize("wrong", LATE)
def test_what_was_late_is_no_loss(wrong: str) -> None:
    with pytest.raises(AssertionError) as raised:
        check_wrongs([wrong])
    assert type(raised.value) is AssertionError


@pytest.mark.parametrize("wrong", ["k: another text: 'a'", "k: token 3 behind 1 tokens", "k: s.0.3 behind (0, 4)"])
def test_one_lost_token_among_late_ones_is_a_loss(wrong: str) -> None:
    with pytest.raises(NotExactlyOnce):
        check_wrongs([*LATE, wrong])


@pytest.mark.parametrize("text", ["a1 a3 ", "a1 a2 a2 a3 ", "a1 b2 a3 ", "a1 a2 ", ""])
def test_another_text_of_a_stream_that_ended_well_is_a_loss(text: str) -> None:
    with pytest.raises(NotExactlyOnce):
        Journal(tokens=[text], end_event="done").check("a1 a2 a3 ")


@pytest.mark.parametrize("journal", [Journal(end_event="error"), Journal(), Journal(wrongs=[LATE[0]])])
def test_a_stream_that_ended_early_or_late_is_no_loss(journal: Journal) -> None:
    with pytest.raises(AssertionError) as raised:
        journal.check("a1 a2 a3 ")
    assert type(raised.value) is AssertionError


@pytest.mark.parametrize(("error", "runs"), [("AssertionError", 3), ("NotExactlyOnce", 1)])
def test_a_loss_is_not_tried_again(error: str, runs: int, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from tests.support.journal import NotExactlyOnce\n"
        f"def test_it():\n    print('RUN', flush=True)\n    raise {error}('x')\n"
    )
    command = [sys.executable, "-m", "pytest", "-c", str(HOME / "pyproject.toml"), "--rootdir", str(HOME)]
    done = subprocess.run(
        [*command, "-s", "--reruns-delay", "0", str(tmp_path / "test_it.py")],
        cwd=HOME, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.count("RUN\n") == runs, done.stdout + done.stderr
