"""What is written of a sweep, and when nothing is."""

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from loadtests.capacity.page import page
from loadtests.capacity.point import Model, Point
from loadtests.capacity.result import SCHEMA, Answer, Question, answer, config_sha256, write
from loadtests.capacity.summary import HEADINGS, markdown
from loadtests.capacity.sweep import Bounds, Sweep, sweep
from tests.unit.loadtests.capacity.points import CHAT, SOUND, loaded

QUESTION = Question("chat", CHAT, "nginx", "on another core", "make capacity")


def target(model: Model, streams: int, seed: int, seconds: float) -> Point:
    return loaded(streams, 400, model, seed)


@pytest.fixture(scope="module")
def found() -> Sweep:
    return sweep(target, CHAT, Bounds())


@pytest.fixture(scope="module")
def told(found: Sweep) -> Answer:
    return answer(found, QUESTION)


def test_a_sound_sweep_is_valid_and_follows_the_schema(found: Sweep, told: Answer) -> None:
    assert told.reasons == []
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(told.document)
    assert told.document["status"] == "measured"
    assert told.document["streams_per_worker"] == found.confirmed
    assert told.document["streams_per_pod"] == 2 * told.document["streams_per_worker"]
    assert (told.document["cpu_us_per_token"], told.document["kib_per_stream"]) == (50.0, 60.0)


def test_a_valid_answer_is_written_and_an_invalid_one_leaves_the_file_alone(
    found: Sweep, told: Answer, tmp_path: Path
) -> None:
    file = tmp_path / "capacity.json"
    write(told, file)
    before = file.read_text()

    assert json.loads(before) == told.document
    write(Answer(told.document | {"streams_per_worker": 1}, ["the generator was busy"]), file)
    assert file.read_text() == before


def test_a_busy_generator_makes_the_answer_invalid_and_says_why(found: Sweep) -> None:
    busy = msgspec.structs.replace(SOUND, lag_p99_ms=25)
    spoilt = found._replace(confirmations=[msgspec.structs.replace(each, health=busy) for each in found.confirmations])
    told = answer(spoilt, QUESTION)

    assert not told.valid
    assert told.document["status"] == "provisional"
    assert "INVALID" in markdown(spoilt, told, CHAT).splitlines()[0]
    assert "25.0 ms late" in markdown(spoilt, told, CHAT)


def test_a_search_that_ended_at_its_bounds_gives_no_number(tmp_path: Path) -> None:
    told = answer(sweep(target, CHAT, Bounds(streams_max=256)), QUESTION)

    assert told.reasons == ["256 streams kept every objective: raise --streams-max"]


def test_the_report_has_a_row_for_every_point(found: Sweep, told: Answer) -> None:
    rows = [line for line in markdown(found, told, CHAT).splitlines() if line.startswith(("| closed", "| open"))]

    assert len(rows) == len(found.points) + len(found.confirmations)
    assert all(len(row.strip("| ").split(" | ")) == len(HEADINGS) for row in rows)


def test_the_page_needs_nothing_from_anywhere_else(found: Sweep, told: Answer) -> None:
    text = page(found, told, CHAT)

    assert "400 streams" not in text.split("<h1")[0]
    assert text.count('class="plotly-graph-div"') == 4
    outside = text.split("</script>", 1)[1]  # behind the plots' own library
    assert "src=" not in outside
    assert "<link" not in text.split("<script>")[0]


def test_a_setting_changes_the_configuration_s_hash_and_a_stranger_s_does_not() -> None:
    plain = config_sha256(QUESTION, {"HOME": "/"})

    assert plain == config_sha256(QUESTION, {"EDITOR": "vi"})
    assert plain != config_sha256(QUESTION, {"SLUICE_STREAM_LOG": "memory://"})
    assert plain != config_sha256(QUESTION._replace(due=msgspec.structs.replace(CHAT, ttft_share=0.9)), {})
