"""Loads as a sound measurement makes them, and a target that carries so many streams and no more."""

from typing import Any

import msgspec

from loadtests.capacity.objectives import Objectives
from loadtests.capacity.point import Cost, Health, Model, Point
from loadtests.capacity.records import Kept
from loadtests.capacity.saturation import Saturation

CHAT = Objectives(
    tokens_per_second=20,
    tokens_per_stream=100,
    ttft_ms_max=100,
    ttft_share=0.99,
    gap_ms_max=100,
    gap_share=0.99,
    complete_share=0.999,
)
SOUND = Health(
    in_flight_mean=200,
    lag_p99_ms=0.5,
    start_lag_p99_ms=0.5,
    generator_busy_percent=40,
    neighbours_percent=2,
    scheduled=400,
    waiting=0,
)


def point(streams: int = 200, model: Model = "closed", seed: int = 1, **changes: Any) -> Point:
    """10 s of so many streams that kept everything, with `changes`."""
    ended = streams * 2
    sound = Point(
        model=model,
        streams=streams,
        seed=seed,
        window_seconds=10.0,
        tokens=streams * 200,
        kept={"ttft": Kept(ended, ended), "gap": Kept(ended, ended), "complete": Kept(ended, ended)},
        ttft_ms={"p50": 2.0, "p95": 4.0, "p99": 8.0},
        gap_ms={"p50": 50.0, "p99": 53.0, "p99.9": 60.0},
        outcomes={"finished": ended, "open": streams},
        finished=ended,
        saturation=Saturation.UNSATURATED,
        stream_seconds=streams * 10.0,
        life_seconds=5.0,
        edge_seconds=(2 * ended / 10.0 * 5.0**3 / 3) ** 0.5,
        health=msgspec.structs.replace(SOUND, in_flight_mean=streams, scheduled=ended),
        cost=Cost(50.0, 20.0, 60.0, 20.0),
        tokens_per_second_due=20.0,
    )
    return msgspec.structs.replace(sound, **changes)


def loaded(streams: int, limit: float, model: Model = "closed", seed: int = 1, steepness: float = 0.1) -> Point:
    """A point of a target whose share of streams without a pause falls to 99 % at `limit`, and on from there."""
    share = min(1.0, max(0.0, 0.99 - steepness * (streams / limit - 1)))
    total = streams * 2
    kept = {"ttft": Kept(total, total), "gap": Kept(round(share * total), total), "complete": Kept(total, total)}
    return point(streams, model, seed, kept=kept)
