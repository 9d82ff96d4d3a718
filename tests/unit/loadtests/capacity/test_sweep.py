"""The search, on targets whose limit is known."""

import msgspec
import pytest

from loadtests.capacity.again import OTHER_SEEDS
from loadtests.capacity.point import Model, Point
from loadtests.capacity.sweep import Bounds, sweep
from tests.unit.loadtests.capacity.points import CHAT, loaded, point


class Target:
    """Carries `limit` streams, and fewer in the open model if told."""

    def __init__(self, limit: float, open_limit: float | None = None) -> None:
        self.limit = {"closed": limit, "open": open_limit or limit}
        self.asked: list[tuple[Model, int, int]] = []

    def __call__(self, model: Model, streams: int, seed: int, seconds: float) -> Point:
        self.asked.append((model, streams, seed))
        return loaded(streams, self.limit[model], model, seed)


@pytest.mark.parametrize("limit", [70, 200, 511, 513, 900])
def test_the_limit_is_found_and_never_exceeded(limit: float) -> None:
    found = sweep(Target(limit), CHAT, Bounds())

    assert found.boundary.streams == pytest.approx(limit, rel=0.05)
    assert found.confirmed is not None
    assert 0.85 * limit < found.confirmed <= limit
    assert found.outside is None


def test_every_seed_measures_near_the_boundary_and_confirms_the_number() -> None:
    target = Target(400)
    found = sweep(target, CHAT, Bounds(repetitions=4))

    near = {
        seed % OTHER_SEEDS for model, streams, seed in target.asked if model == "closed" and abs(streams - 400) < 60
    }
    assert near == {1, 2, 3, 4}
    assert [(each.streams, each.seed) for each in found.carried] == [(found.confirmed, s) for s in (1, 2, 3, 4)]


def test_the_number_is_what_the_open_model_carries() -> None:
    found = sweep(Target(400, open_limit=350), CHAT, Bounds())

    assert found.confirmed is not None
    assert 320 < found.confirmed <= 350


def test_no_number_is_given_where_the_open_model_carries_nothing_near() -> None:
    assert sweep(Target(400, open_limit=100), CHAT, Bounds()).confirmed is None


def test_a_target_that_never_fails_within_the_bounds_is_said_not_to_have_been_pushed_far_enough() -> None:
    target = Target(10_000)
    found = sweep(target, CHAT, Bounds(streams_max=512))

    assert found.outside == "512 streams kept every objective: raise --streams-max"
    assert max(streams for _, streams, _ in target.asked) == 512


def test_a_target_that_fails_at_once_gives_no_number() -> None:
    found = sweep(Target(8), CHAT, Bounds())

    assert found.outside == "64 streams missed an objective: lower --streams-min"
    assert found.confirmed is None


class Hiccup(Target):
    """Stands still once, at the first load of so many streams."""

    def __init__(self, limit: float, at_streams: int) -> None:
        super().__init__(limit)
        self.at_streams = at_streams

    def __call__(self, model: Model, streams: int, seed: int, seconds: float) -> Point:
        if streams == self.at_streams:
            self.at_streams = 0
            return loaded(streams, streams / 2, model, seed)
        return super().__call__(model, streams, seed, seconds)


def test_a_machine_that_stood_still_once_is_not_taken_for_the_boundary() -> None:
    found = sweep(Hiccup(400, at_streams=128), CHAT, Bounds())

    assert found.boundary.streams == pytest.approx(400, rel=0.05)
    left_out = [each for role, each in found.aside if role == "left out"]
    assert [(each.streams, each.seed) for each in left_out] == [(128, 1)]


def test_the_number_itself_is_measured_without_a_second_try() -> None:
    target = Target(400, open_limit=100)
    sweep(target, CHAT, Bounds())

    assert {seed for model, _, seed in target.asked if model == "open"} == {1}


class Neighbour(Target):
    """Takes a quarter of the core, once, from the first load of the open model, which misses."""

    def __call__(self, model: Model, streams: int, seed: int, seconds: float) -> Point:
        measured = super().__call__(model, streams, seed, seconds)
        if model != "open" or sum(each == "open" for each, _, _ in self.asked) > 1:
            return measured
        health = msgspec.structs.replace(measured.health, neighbours_percent=25.0)
        return msgspec.structs.replace(loaded(streams, streams / 2, model, seed), health=health)


def test_a_disturbed_load_of_the_number_itself_is_measured_again() -> None:
    found = sweep(Neighbour(400), CHAT, Bounds())

    assert found.not_carried == []
    assert [role for role, each in found.everything() if each.model == "open"] == ["disturbed", *["carried"] * 3]


def test_points_far_beyond_the_boundary_do_not_decide() -> None:
    found = sweep(Target(130), CHAT, Bounds())

    assert 256 in {each.streams for each in found.points}
    assert max(each.streams for each in found.deciding()) < 256


def test_it_takes_few_enough_points_for_a_coffee_break() -> None:
    target = Target(600)
    sweep(target, CHAT, Bounds())

    assert len(target.asked) <= 30
    assert point(600).misses(CHAT) == []
