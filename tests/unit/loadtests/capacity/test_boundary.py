"""Where the objectives stop being kept."""

import msgspec
import numpy as np
import pytest

from loadtests.capacity.boundary import CONFIDENCE_PERCENT, RESAMPLES, boundary, crossing
from loadtests.capacity.point import Point
from loadtests.capacity.records import Kept
from loadtests.capacity.sweep import PRECISION
from tests.unit.loadtests.capacity.points import CHAT, loaded, point

LOADS = (64, 128, 256, 360, 380, 400, 420, 440, 512)


def drawn(limit: float, random: np.random.Generator) -> list[Point]:
    """Points whose streams keep the gap by chance, as many as the load lets."""
    points = []
    for streams in LOADS:
        true = loaded(streams, limit)
        total = true.kept["gap"].total
        good = int(random.binomial(total, true.kept["gap"].share))
        points.append(point(streams, kept=true.kept | {"gap": Kept(good, total)}))
    return points


def test_the_boundary_lies_where_the_share_crosses_the_one_that_is_due() -> None:
    found = boundary([loaded(streams, 400) for streams in LOADS], CHAT)

    assert found.streams == pytest.approx(400, rel=0.02)
    assert found.low <= found.streams <= found.high
    assert found.binding == "gap"


def test_the_interval_holds_the_truth_as_often_as_it_says_and_is_not_wide_for_it() -> None:
    """Of 200 that were drawn once it held 197: points and the streams within each are drawn anew, which is cautious."""
    random = np.random.default_rng(7)
    found = [boundary(drawn(400, random), CHAT, resamples=200) for _ in range(60)]

    assert sum(each.low <= 400 <= each.high for each in found) >= CONFIDENCE_PERCENT / 100 * len(found)
    assert np.mean([each.high - each.low for each in found]) < 0.15 * 400


def test_more_resamples_move_the_interval_by_less_than_the_search_is_precise() -> None:
    points = drawn(400, np.random.default_rng(7))
    few, many = (boundary(points, CHAT, resamples=count) for count in (200, RESAMPLES))

    assert (few.low, few.high) == pytest.approx((many.low, many.high), rel=PRECISION / 2)


def test_one_unlucky_point_below_the_boundary_does_not_move_it_far() -> None:
    unlucky = point(256, kept={"ttft": Kept(512, 512), "gap": Kept(506, 512), "complete": Kept(512, 512)})

    found = boundary([*(loaded(streams, 400) for streams in LOADS), unlucky], CHAT)

    assert found.streams > 350


def test_loads_that_all_kept_everything_end_at_the_largest() -> None:
    assert boundary([point(64), point(128)], CHAT).streams == 128


def test_a_target_that_keeps_nothing_carries_nothing() -> None:
    assert boundary([loaded(64, 8), loaded(128, 8)], CHAT).streams == 0


def test_an_objective_that_no_stream_could_be_judged_by_decides_nothing() -> None:
    """A window shorter than the first token's bound has none that was late; the interval began at 0 for it."""
    points = [loaded(streams, 400) for streams in LOADS]
    unjudged = [msgspec.structs.replace(each, kept=each.kept | {"ttft": Kept(0, 0)}) for each in points]

    found = boundary(unjudged, CHAT)
    assert (found.streams, found.binding) == boundary(points, CHAT)[::3]
    assert found.low > 300


def test_the_order_of_the_points_does_not_matter() -> None:
    points = [loaded(streams, 400) for streams in LOADS]

    assert boundary(points, CHAT).streams == boundary(points[::-1], CHAT).streams


def test_between_two_loads_the_crossing_is_interpolated() -> None:
    assert crossing(np.array([100.0, 200.0]), np.array([1.0, 0.98]), np.array([1e3, 1e3]), 0.99) == pytest.approx(150)
