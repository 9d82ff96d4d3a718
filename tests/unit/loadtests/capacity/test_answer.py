"""What is written of a sweep, and when nothing is."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from loadtests.bench import ours
from loadtests.bench.surfaces import SURFACES
from loadtests.capacity import result
from loadtests.capacity.__main__ import leave
from loadtests.capacity.objectives import SMOKE
from loadtests.capacity.page import page
from loadtests.capacity.point import Model, Point
from loadtests.capacity.result import SCHEMA, Answer, Question, answer, config_sha256, write
from loadtests.capacity.summary import HEADINGS, markdown
from loadtests.capacity.sweep import Bounds, Sweep, sweep
from tests.unit.loadtests.capacity.points import CHAT, SOUND, loaded

QUESTION = Question("chat", CHAT, "nginx", SURFACES["openai"], 3, "on another core", "make capacity")


def target(model: Model, streams: int, seed: int, seconds: float) -> Point:
    return loaded(streams, 400, model, seed)


class Uneven:
    """Carries 400 streams, in the open model 350; and stands still once, at the first load of 128."""

    def __init__(self) -> None:
        self.still = True

    def __call__(self, model: Model, streams: int, seed: int, seconds: float) -> Point:
        if streams == 128 and self.still:
            self.still = False
            return loaded(streams, 64, model, seed)
        return loaded(streams, 350 if model == "open" else 400, model, seed)


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
    write(Answer(told.document | {"streams_per_worker": 1}, ["the generator was busy"], QUESTION), file)
    assert file.read_text() == before


def test_a_busy_generator_makes_the_answer_invalid_and_says_why(found: Sweep) -> None:
    busy = msgspec.structs.replace(SOUND, lag_p99_ms=25)
    spoilt = found._replace(carried=[msgspec.structs.replace(each, health=busy) for each in found.carried])
    told = answer(spoilt, QUESTION)

    assert not told.valid
    assert told.document["status"] == "provisional"
    assert "INVALID" in markdown(spoilt, told, CHAT).splitlines()[0]
    assert "25.0 ms late" in markdown(spoilt, told, CHAT)


def test_a_search_that_ended_at_its_bounds_gives_no_number(tmp_path: Path) -> None:
    told = answer(sweep(target, CHAT, Bounds(streams_max=256)), QUESTION)

    assert told.reasons == ["256 streams kept every objective: raise --streams-max"]


def test_every_load_that_was_measured_is_in_the_table_and_among_the_points_and_says_what_it_counts_for(
    tmp_path: Path,
) -> None:
    asked: list[tuple[Model, int, int]] = []
    uneven = Uneven()

    def counted(model: Model, streams: int, seed: int, seconds: float) -> Point:
        asked.append((model, streams, seed))
        return uneven(model, streams, seed, seconds)

    found = sweep(counted, CHAT, Bounds())
    told = answer(found, QUESTION)
    leave(tmp_path, found, told, CHAT)
    missed = {streams for model, streams, _ in asked if model == "open"} - {found.confirmed}
    due = {("closed", "128", "1"): "left out", ("open", str(max(missed)), "1"): "not carried"}
    due |= {("closed", "512", "1"): "first try", ("closed", "512", "1001"): "search"}
    due |= {("open", str(found.confirmed), str(seed)): "carried" for seed in (1, 2, 3)}

    lines = [line for line in markdown(found, told, CHAT).splitlines() if line.startswith(("| closed", "| open"))]
    rows = [dict(zip(HEADINGS, line.strip("| ").split(" | "), strict=True)) for line in lines]
    roles = {(row["model"], row["streams"], row["seed"]): row["counts"] for row in rows}
    points = json.loads((tmp_path / "points.json").read_text())
    assert sorted(roles) == sorted((model, str(streams), str(seed)) for model, streams, seed in asked)
    assert due.items() <= roles.items()
    assert {(each["model"], str(each["streams"]), str(each["seed"])): each["role"] for each in points} == roles
    assert {point["cpu_us_per_token"] for point in (each["cost"] for each in points)} == {50.0}


def test_the_number_and_the_interval_are_told_apart() -> None:
    """The number is the open model's, the interval the closed one's: here neither holds the other."""
    found = sweep(Uneven(), CHAT, Bounds())
    told = answer(found, QUESTION)
    document, text = told.document, markdown(found, told, CHAT)
    low, high = document["streams_per_worker_interval"]

    assert document["streams_per_worker"] < low < high
    assert document["streams_per_worker_missed"] == sorted({point.streams for point in found.not_carried}) != []
    missed = ", ".join(map(str, reversed(document["streams_per_worker_missed"])))
    assert f"- The number, {found.confirmed}, is of the open model: " in text
    assert f"kept every objective in each of 3 repetitions. {missed} did not." in text
    assert f"95 % interval {low:g} to {high:g}. It is not the number's." in text
    said = json.loads(SCHEMA.read_text())["properties"]
    assert "open model" in said["streams_per_worker"]["description"]
    assert "closed model" in said["streams_per_worker_interval"]["description"]


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
    assert plain != config_sha256(QUESTION, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})


@pytest.mark.parametrize(
    "other",
    [
        QUESTION._replace(due=msgspec.structs.replace(CHAT, ttft_share=0.9)),
        QUESTION._replace(surface=SURFACES["native"]),
        QUESTION._replace(surface=SURFACES["openai"]._replace(header="Authorization: Bearer sk-1")),
        QUESTION._replace(system="everything"),
        QUESTION._replace(target="http://127.0.0.1:8080"),
    ],
    ids=["objectives", "route", "header", "system", "target"],
)
def test_another_question_has_another_hash(other: Question) -> None:
    assert config_sha256(QUESTION, {}) != config_sha256(other, {})


def test_another_models_file_has_another_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = config_sha256(QUESTION, {})
    monkeypatch.setattr(ours, "STREAMS_MAX", 1)

    assert config_sha256(QUESTION, {}) != plain


@pytest.mark.parametrize(
    ("asked", "lacks"),
    [
        ({}, ""),
        ({"repetitions": 2}, "3 repetitions"),
        ({"profile": SMOKE}, "objectives that users are promised"),
        ({"target": "http://127.0.0.1:8080"}, "the figures of one worker"),
        ({"system": "everything-redis"}, "the system that the limits are of, --system nginx"),
        ({"system": "sluice"}, "the system that the limits are of, --system nginx"),
    ],
    ids=["whole", "two repetitions", "the tests' profile", "elsewhere", "another system", "without NGINX"],
)
def test_the_number_that_bounds_all_is_written_only_of_enough_repetitions_of_what_is_promised(
    asked: dict[str, Any], lacks: str, told: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Valid it is each time. Another file may have it, which no limit follows from."""
    file = tmp_path / "deploy" / "capacity.json"
    file.parent.mkdir()
    monkeypatch.setattr(result, "FILE", file)
    of = told._replace(question=QUESTION._replace(**asked))
    write(of, file.parent / ".." / "deploy" / file.name)
    write(of, tmp_path / "other.json")

    assert lacks in of.lacks(file)
    assert file.exists() is (lacks == "")
    assert (tmp_path / "other.json").exists() is ("target" not in asked)
