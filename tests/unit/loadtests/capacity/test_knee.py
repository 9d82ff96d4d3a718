"""The bend of a curve."""

from loadtests.capacity.knee import knee


def test_the_bend_is_where_throughput_stops_following_the_load() -> None:
    loads = [float(load) for load in range(100, 1100, 100)]

    assert knee(loads, [min(load, 600.0) * 20 for load in loads]) == 600


def test_a_straight_line_has_none() -> None:
    assert knee([1, 2, 4, 8, 16], [20, 40, 80, 160, 320]) is None


def test_three_loads_are_too_few_to_tell() -> None:
    assert knee([1, 2, 4, 4, 4], [1, 2, 2, 2, 2]) is None
