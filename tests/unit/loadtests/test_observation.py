"""What is kept of a stream, and what its events mean."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.capacity.records import read_records
from loadtests.observation import Journal, Observation, Outcome
from loadtests.sse import Event
from loadtests.surfaces import Meaning, Native, OpenAI, Wish
from tests.support.launched import HOME


def observed() -> Observation:
    """Due at 1 s, opened at 1.2, tokens at 1.5, 1.6 and 1.9, cut at 2.0, back at 2.5, on at 2.6."""
    seen = Observation("short chat", scheduled=1.0, opened=1.2)
    for at in (1.5, 1.6, 1.9):
        seen.token(at)
    seen.cut(2.0)
    for at in (2.5, 2.6):
        seen.token(at)
    seen.end(2.7, Outcome.FINISHED)
    return seen


def test_the_first_token_counts_from_when_the_stream_was_due() -> None:
    assert observed().ttft == pytest.approx(0.5)


def test_the_time_of_a_resume_is_no_gap_of_the_stream() -> None:
    seen = observed()

    assert seen.gaps == pytest.approx([0.1, 0.3, 0.1])
    assert seen.largest_gap == pytest.approx(0.3)
    assert seen.resumes == pytest.approx([0.5])
    assert seen.tokens == 5


def test_whoever_is_turned_away_has_been_without_its_stream_since_before() -> None:
    seen = Observation("short chat", 1.0, 1.0)
    seen.token(1.1)
    for at in (2.0, 3.0, 4.0):
        seen.cut(at)
    seen.token(4.5)

    assert seen.resumes == pytest.approx([2.5])


def test_what_a_reset_makes_void_does_not_count() -> None:
    seen = observed()
    seen.reset()
    seen.token(2.8)

    assert (seen.tokens, seen.resets) == (1, 1)
    assert seen.ttft == pytest.approx(0.5)


def test_the_journal_is_what_the_sweep_reads(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "records", 0)
    journal.write(observed())
    silent = Observation("short chat", 3.0, 3.0)
    silent.end(43.0, Outcome.SILENT)
    journal.write(silent)
    journal.close()

    first, second = read_records(journal.file)

    assert (first.ttft_ms, first.largest_gap_ms, first.tokens, first.outcome) == (500, 300, 5, "finished")
    assert (second.ttft_ms, second.largest_gap_ms, second.outcome) == (None, None, "silent")


IN_A_CONTAINER = """
import os, sys
from pathlib import Path
os.getpid = lambda: 7
from loadtests.observation import Journal, Observation
journal = Journal(Path(sys.argv[1]), 0)
journal.write(Observation("short chat", 1.0, 1.0))
journal.close()
"""


def test_a_second_run_has_its_own_journal_where_containers_give_it_the_same_process_id(tmp_path: Path) -> None:
    for _ in range(2):
        subprocess.run([sys.executable, "-c", IN_A_CONTAINER, str(tmp_path)], cwd=HOME, check=True, timeout=60)

    files = list(tmp_path.glob("*.jsonl"))
    assert [len(file.read_text().splitlines()) for file in files] == [1, 1]


def test_two_tests_of_one_process_are_in_one_journal(tmp_path: Path) -> None:
    for _ in range(2):
        journal = Journal(tmp_path, 0)
        journal.write(observed())
        journal.close()

    assert len(read_records(journal.file)) == 2


def chunk(**delta: str) -> Event:
    return Event("message", json.dumps({"choices": [{"index": 0, "delta": delta}]}), "", None)


@pytest.mark.parametrize(
    ("event", "meaning"),
    [
        (chunk(content="Hello"), Meaning.TOKEN),
        (chunk(role="assistant", content=""), Meaning.OTHER),
        (chunk(), Meaning.OTHER),
        (Event("message", '{"choices": [], "usage": {"total_tokens": 3}}', "", None), Meaning.OTHER),
        (Event("message", '{"error": {"message": "no"}}', "", None), Meaning.FAILED),
        (Event("message", "[DONE]", "", None), Meaning.DONE),
    ],
)
def test_only_text_is_a_token_of_openai_s_stream(event: Event, meaning: Meaning) -> None:
    assert OpenAI().meaning(event) is meaning


@pytest.mark.parametrize(("retryable", "meaning"), [("true", Meaning.PASSING), ("false", Meaning.FAILED)])
def test_an_error_that_may_pass_is_told_from_one_that_does_not(retryable: str, meaning: Meaning) -> None:
    assert Native().meaning(Event("error", f'{{"code": "x", "retryable": {retryable}}}', "", None)) is meaning


def test_an_event_that_nobody_knows_is_passed_over() -> None:
    assert Native().meaning(Event("notice", "{}", "", None)) is Meaning.OTHER


def test_a_real_model_is_not_asked_for_the_simulator_s_options() -> None:
    asked = Native().body(Wish("Hello", 50, tokens_per_second=None), "gpt-x")

    assert asked == {"prompt": "Hello", "model": "gpt-x", "stream": True, "max_tokens": 50}
    assert Native().body(Wish("Hello", 50, 20, seed=3), "simulator")["simulator"] == {
        "tokens": 50,
        "tokens_per_second": 20,
        "seed": 3,
    }
