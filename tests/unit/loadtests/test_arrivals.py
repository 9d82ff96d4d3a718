"""The open model of the Locust users, and how the load changes in time."""

import numpy as np
import pytest

from loadtests.arrivals import Arrivals
from loadtests.shapes.curves import ramp, soak, spike, steps


def taken(per_second: float, seed: int, count: int) -> list[float]:
    arrivals = Arrivals(per_second, seed, 100.0)
    return [arrivals.take() for _ in range(count)]


def test_gaps_between_arrivals_are_those_of_a_poisson_process() -> None:
    gaps = np.diff(taken(50, 1, 5000))

    assert gaps.mean() == pytest.approx(1 / 50, rel=0.05)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.1)  # of an exponential, as large as its mean


def test_the_same_seed_gives_the_same_moments_and_another_gives_others() -> None:
    assert taken(10, 1, 20) == taken(10, 1, 20)
    assert taken(10, 1, 20) != taken(10, 2, 20)


def served(arrivals: Arrivals, users: int, seconds: float, pause: tuple[float, float], wait: bool) -> list[float]:
    """Latencies of a server that takes 10 ms and stands still within `pause`; users wait for the server, or do not."""
    free = [0.0] * users
    latencies = []
    while (at := min(free)) < seconds:
        user = free.index(at)
        due = at if wait else arrivals.take()
        begin = max(at, due)
        if begin >= seconds:
            break
        end = max(begin, pause[1] if pause[0] <= begin < pause[1] else begin) + 0.01
        arrivals.began(due, begin)
        latencies.append(end - due)
        free[user] = end
    return latencies


def test_a_pause_of_a_second_shows_in_the_open_model_and_not_in_the_closed_one() -> None:
    closed = served(Arrivals(50, 1, 0.0), users=1, seconds=10, pause=(4, 5), wait=True)
    opened = served(Arrivals(50, 1, 0.0), users=100, seconds=10, pause=(4, 5), wait=False)

    assert np.percentile(closed, 99) < 0.05
    assert np.percentile(opened, 99) > 0.7


def test_too_few_users_are_found_out() -> None:
    enough, few = Arrivals(50, 1, 0.0), Arrivals(50, 1, 0.0)
    served(enough, users=50, seconds=20, pause=(0, 0), wait=False)
    served(few, users=1, seconds=20, pause=(5, 10), wait=False)

    assert enough.complaints() == []
    assert "ms late (p99), at most 50 ms" in few.complaints()[0]


def test_a_spike_is_five_times_what_is_before_and_after() -> None:
    assert [spike(at, 100, 60) for at in (0, 19, 20, 39, 41, 60)] == [20, 20, 100, 100, 20, 20]


def test_steps_are_even_and_a_ramp_is_straight_and_a_soak_flat() -> None:
    assert [steps(at, 100, 50) for at in (0, 9, 10, 25, 49, 50)] == [20, 20, 40, 60, 100, 100]
    assert [ramp(at, 100, 50) for at in (0, 5, 25, 50, 60)] == [1, 10, 50, 100, 100]
    assert {soak(at, 100, 50) for at in (0, 25, 50)} == {100}
