"""When a client that lost its connection comes back."""

import random

from loadtests.patience import FAILURES_MAX, Patience


def pauses(*, heard: bool, count: int, told: float | None = None) -> list[float]:
    patience = Patience(random.Random(1))
    return [patience.pause_seconds(told, heard) for _ in range(count)]


def test_a_first_pause_is_a_tenth_of_a_second_to_one() -> None:
    first = pauses(heard=True, count=500)

    assert 0.1 <= min(first) < 0.15
    assert 0.95 < max(first) <= 1.0


def test_a_pause_is_twice_as_long_at_each_failure_up_to_some_seconds() -> None:
    """Of many clients: one of them goes by chance."""
    many = []
    for seed in range(300):
        patience = Patience(random.Random(seed))
        many.append([patience.pause_seconds(None, heard=False) for _ in range(8)])
    means = [sum(column) / len(column) for column in zip(*many, strict=True)]

    assert 0.9 < means[0] < 1.3
    assert 1.8 < means[1] < 2.6
    assert means[-1] == max(max(row) for row in many) == 5.0


def test_what_the_server_says_is_done_within_bounds() -> None:
    assert pauses(heard=True, count=2, told=1.5) == [1.5, 1.5]
    assert pauses(heard=True, count=1, told=3600) == [30]


def test_a_client_gives_up_when_it_gets_nothing_many_times_in_a_row() -> None:
    patience = Patience(random.Random(1))
    for _ in range(FAILURES_MAX - 1):
        patience.pause_seconds(None, heard=False)
    assert not patience.spent
    patience.pause_seconds(None, heard=True)
    for _ in range(FAILURES_MAX):
        assert not patience.spent
        patience.pause_seconds(None, heard=False)

    assert patience.spent
