"""Little's law against loads that stay as they are, that grow, and of which something is lost."""

import msgspec
import numpy as np
import pytest

from loadtests.capacity.point import Cost, Health, Point, make_point
from loadtests.capacity.records import Record
from loadtests.capacity.verdict import load_complaints
from tests.unit.loadtests.capacity.points import CHAT

LIFE_SECONDS = 5.0
# Before the window, as the generator has it: the ramp, and a second.
LEAD_SECONDS = 6.0
RUNS = 100


def measured(streams: int, window_seconds: float, seed: int, growth: float = 0.0, lost: float = 0.0) -> Point:
    """What a generator tells of Poisson arrivals that live for 5 s, and after each second for `growth` s longer.

    Counted and recorded apart: `lost` is the share of the records that are missing.
    """
    random = np.random.default_rng(seed)
    count = random.poisson(streams / LIFE_SECONDS * (LEAD_SECONDS + window_seconds))
    begun = np.sort(random.uniform(-LEAD_SECONDS, window_seconds, count))
    ended = begun + LIFE_SECONDS + growth * np.maximum(0, begun)
    in_flight_mean = float(np.clip(ended, 0, window_seconds).sum() - np.clip(begun, 0, None).sum()) / window_seconds
    written = [
        Record(
            1000 * begin,
            1000 * begin,
            1000 * min(end, window_seconds),
            1000 * begin + 5,
            50.0,
            100,
            "finished" if end <= window_seconds else "open",
        )
        for begin, end in zip(begun, ended, strict=True)
        if end >= 0 and random.random() >= lost
    ]
    return make_point(
        model="open",
        streams=streams,
        seed=seed,
        window_seconds=window_seconds,
        tokens=round(in_flight_mean * CHAT.tokens_per_second * window_seconds),
        records=written,
        gap_ms={},
        health=Health(in_flight_mean, lag_p99_ms=0.1, start_lag_p99_ms=0.1, scheduled=int(np.sum(begun >= 0))),
        cost=Cost(),
        due=CHAT,
    )


def complained(runs: int, words: str, streams: int, seconds: float, growth: float = 0.0, lost: float = 0.0) -> float:
    """The share of so many runs of which that is said."""
    seeds = range(runs)
    told = [load_complaints(measured(streams, seconds, seed, growth, lost)) for seed in seeds]
    return sum(any(words in text for text in texts) for texts in told) / runs


@pytest.mark.parametrize("seconds", [8.0, 15.0])
@pytest.mark.parametrize("streams", [6, 20, 64, 254])
def test_a_load_that_stays_as_it_is_is_believed_of_however_few_streams(streams: int, seconds: float) -> None:
    """Three deviations: of a thousand runs three are doubted, and some more of six streams, whose lot is lopsided."""
    assert complained(RUNS, "", streams, seconds) <= 0.03


def test_of_enough_streams_five_percent_are_more_than_chance() -> None:
    """What a sweep ends with: as many streams as a worker carries, for 15 s."""
    seen = [measured(400, 15, seed) for seed in range(RUNS)]
    assert max(each.edge_percent for each in seen) < 5 / 3
    assert max(each.little_percent for each in seen) < 5


def test_streams_that_pile_up_are_not() -> None:
    """Lives that grow from 5 s to 15 within the window; half as much `saturation` sees, and this does not."""
    assert complained(RUNS, "Little's law", 400, 15.0, growth=2.0) >= 0.95


def test_arrivals_that_are_not_those_that_were_counted_are_not() -> None:
    seen = measured(400, 15, 1)
    fewer = msgspec.structs.replace(seen.health, scheduled=round(0.9 * seen.health.scheduled))

    assert any("Little's law" in text for text in load_complaints(msgspec.structs.replace(seen, health=fewer)))


def test_records_that_are_missing_are_noticed_though_the_mean_of_the_rest_is_right() -> None:
    seen = measured(400, 15, 1, lost=0.1)

    assert seen.little_percent < 5
    assert complained(RUNS, "their records", 400, 15.0, lost=0.1) == 1
