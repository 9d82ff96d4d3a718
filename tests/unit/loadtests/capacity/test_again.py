"""What is measured twice, and which of the two counts."""

import msgspec

from loadtests.capacity.again import DISTURBED_MAX, OTHER_SEEDS, Again
from loadtests.capacity.point import Model, Point
from tests.unit.loadtests.capacity.points import CHAT, loaded, point


def missed(streams: int) -> Point:
    return loaded(streams, streams / 2)


def disturbed(measured: Point) -> Point:
    return msgspec.structs.replace(measured, health=msgspec.structs.replace(measured.health, neighbours_percent=12.0))


def measuring(*points: Point, tries: int = 2) -> tuple[Again, list[str], list[int]]:
    """These points, one after the other; what was said, and the seeds that were asked for."""
    left = list(points)
    said: list[str] = []
    seeds: list[int] = []

    def measure(model: Model, streams: int, seed: int, seconds: float) -> Point:
        seeds.append(seed)
        return left.pop(0)

    return Again(measure, CHAT, said.append, tries), said, seeds


def test_what_kept_its_objectives_undisturbed_is_measured_once() -> None:
    again, said, seeds = measuring(point(200))

    assert again("closed", 200, 1, 5.0) == point(200)
    assert (again.aside, said, seeds) == ([], [], [1])


def test_a_miss_that_does_not_come_again_is_left_out() -> None:
    again, said, seeds = measuring(missed(200), point(200))

    assert again("closed", 200, 1, 5.0) == point(200)
    assert again.aside == [("left out", missed(200))]
    assert said == ["closed   200 streams, seed 1: missed gap, but not again: left out"]
    assert seeds == [1, 1 + OTHER_SEEDS]


def test_of_two_misses_the_second_counts() -> None:
    again, said, _ = measuring(missed(200), missed(200))

    assert again("closed", 200, 1, 5.0) == missed(200)
    assert (again.aside, said) == ([("first try", missed(200))], [])


def test_what_a_neighbour_disturbed_counts_for_nothing_though_it_kept_its_objectives() -> None:
    again, said, seeds = measuring(disturbed(point(200)), missed(200), missed(200))

    assert again("closed", 200, 1, 5.0) == missed(200)
    assert again.aside == [("disturbed", disturbed(point(200))), ("first try", missed(200))]
    seen = "others took 12 % of the gateway's core, at most 10 %"
    assert said == [f"closed   200 streams, seed 1: {seen}: measured again"]
    assert seeds == [1, 1, 1 + OTHER_SEEDS]


def test_a_disturbed_second_try_is_no_second_miss() -> None:
    again, _, _ = measuring(missed(200), disturbed(missed(200)), point(200))

    assert again("closed", 200, 1, 5.0) == point(200)
    assert [role for role, _ in again.aside] == ["disturbed", "left out"]


def test_a_machine_that_is_shared_for_good_is_left_to_the_verdict() -> None:
    again, _, seeds = measuring(*[disturbed(point(200))] * (1 + DISTURBED_MAX))

    assert again("closed", 200, 1, 5.0) == disturbed(point(200))
    assert len(seeds) == 1 + DISTURBED_MAX


def test_a_smoke_run_measures_once() -> None:
    again, _, seeds = measuring(disturbed(missed(200)), tries=1)

    assert again("closed", 200, 1, 5.0) == disturbed(missed(200))
    assert (again.aside, seeds) == ([], [1])
