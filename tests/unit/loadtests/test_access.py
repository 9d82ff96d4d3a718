"""Of what it costs to be known and counted: which stores cost more than they may."""

from loadtests.bench.access import CHECK_MICROSECONDS_MAX, Cost, dear


def test_a_check_that_costs_too_much_is_named_and_so_is_one_that_could_not_be_measured() -> None:
    least = float(CHECK_MICROSECONDS_MAX)
    cheap, costly = Cost(least, 2 * least), Cost(least + 2, least + 9)
    found = dear({"memory://": cheap, "redis://a": costly, "redis://b": "  the store did not answer in time"})
    assert found == ["redis://a: a check costs 152 us, more than 150", "redis://b: the store did not answer in time"]
