"""Why a measurement is not believed."""

from typing import Any

import msgspec
import pytest

from loadtests.capacity.point import Model, Point
from loadtests.capacity.records import Kept
from loadtests.capacity.verdict import reasons
from tests.unit.loadtests.capacity.points import CHAT, SOUND, point


def unhealthy(model: Model = "closed", **changes: Any) -> Point:
    return point(model=model, health=msgspec.structs.replace(SOUND, **changes))


def test_a_sound_measurement_is_believed() -> None:
    assert reasons([point(), point(400), point(200, "open", 3)], CHAT) == []


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (unhealthy(generator_busy_percent=97), "the generator's core was 97 % busy, at most 95 %"),
        (unhealthy(lag_p99_ms=12.5), "the generator's loop was 12.5 ms late (p99), at most 10 ms"),
        (unhealthy(neighbours_percent=30), "others took 30 % of the gateway's core, at most 10 %"),
        (unhealthy(in_flight_mean=190), "5.3 % between streams in flight and their records, at most 5 %"),
        (point(stream_seconds=1890.0), "5.5 % between streams in flight and their records, at most 5 %"),
        (unhealthy("open", scheduled=362), "9.5 % between streams in flight and Little's law, at most 9 %"),
        (
            point(model="open", life_seconds=5.3, edge_seconds=1.0),
            "6.0 % between streams in flight and Little's law, at most 5 %",
        ),
        (point(tokens=36_000), "90.0 % of the tokens due arrived, 98 % must"),
        (point(finished=0), "no stream finished within the window"),
        (unhealthy("open", start_lag_p99_ms=80), "streams began 80 ms late (p99), at most 50 ms"),
        (unhealthy("open", scheduled=400, waiting=40), "90.0 % of the arrivals began, 98 % must"),
    ],
    ids=[
        "busy",
        "late",
        "neighbours",
        "more than the records",
        "less than the records",
        "Little by arrivals",
        "Little by lives",
        "tokens",
        "none finished",
        "late starts",
        "arrivals",
    ],
)
def test_each_reason_says_what_was_seen_and_what_is_allowed(seen: Point, words: str) -> None:
    (reason, *_) = reasons([seen], CHAT)

    assert words in reason
    assert reason.startswith("200 streams (")


@pytest.mark.parametrize("finished", [20, 400, 10_000])
def test_a_count_within_five_percent_of_its_records_is_believed_however_few_streams_ended(finished: int) -> None:
    assert reasons([point(stream_seconds=1910.0, finished=finished)], CHAT) == []
    assert len(reasons([point(stream_seconds=1890.0, finished=finished)], CHAT)) == 1


def test_a_load_that_missed_its_objectives_may_fall_short_but_not_its_generator() -> None:
    kept = {"ttft": Kept(10, 400), "gap": Kept(400, 400), "complete": Kept(400, 400)}

    assert reasons([point(tokens=20_000, kept=kept)], CHAT) == []
    busy = msgspec.structs.replace(SOUND, generator_busy_percent=99)
    assert len(reasons([point(tokens=20_000, kept=kept, health=busy)], CHAT)) == 1
