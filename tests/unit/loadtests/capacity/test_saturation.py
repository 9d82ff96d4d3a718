"""Whether a server keeps up, tried on queues whose answer is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from loadtests.capacity.saturation import SLICES, Saturation, saturation, slices

WINDOW_MS = 60_000.0
SERVERS = 20
SERVICE_MS = 200.0


def queue(
    utilisation: float, seed: int = 1, start_ms: float = -30_000
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Arrivals and endings of a queue with 20 servers (M/M/20), from before the window on."""
    random = np.random.default_rng(seed)
    per_ms = utilisation * SERVERS / SERVICE_MS
    count = int((WINDOW_MS - start_ms) * per_ms)
    due = start_ms + np.cumsum(random.exponential(1 / per_ms, count))
    free_at = np.full(SERVERS, start_ms)
    ended = np.empty(count)
    for index, at in enumerate(due):
        server = int(np.argmin(free_at))
        free_at[server] = ended[index] = max(at, free_at[server]) + random.exponential(SERVICE_MS)
    return due, ended


@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.85])
def test_a_queue_with_room_is_never_called_saturated(utilisation: float) -> None:
    assert {saturation(*queue(utilisation, seed), WINDOW_MS) for seed in range(5)} <= {
        Saturation.UNSATURATED,
        Saturation.BACKLOG,
    }


@pytest.mark.parametrize("utilisation", [1.1, 1.3, 2.0])
def test_a_queue_that_grows_is_always_called_saturated(utilisation: float) -> None:
    assert {saturation(*queue(utilisation, seed), WINDOW_MS) for seed in range(5)} == {Saturation.SATURATED}


def test_the_verdict_does_not_become_milder_as_the_load_rises() -> None:
    order = list(Saturation)
    verdicts = [order.index(saturation(*queue(utilisation), WINDOW_MS)) for utilisation in (0.5, 0.8, 1.2, 1.6)]

    assert verdicts == sorted(verdicts)


def test_what_drains_after_the_window_does_not_change_the_verdict() -> None:
    due, ended = queue(1.3)
    cut = ended < WINDOW_MS

    assert saturation(due, ended, WINDOW_MS) is saturation(due, ended[cut], WINDOW_MS) is Saturation.SATURATED


def test_how_long_the_warm_up_took_does_not_change_the_verdict() -> None:
    for utilisation in (0.5, 1.3):
        verdicts = {saturation(*queue(utilisation, start_ms=start), WINDOW_MS) for start in (-5_000, -30_000, -60_000)}
        assert len(verdicts) == 1


def test_a_pause_that_is_made_good_is_not_saturation() -> None:
    due = np.arange(0, WINDOW_MS, 10)
    ended = due + 200
    ended[(ended > 20_000) & (ended < 25_000)] = 25_000

    assert saturation(due, ended, WINDOW_MS) is Saturation.UNSATURATED


def test_no_arrival_and_no_ending_is_lost_between_the_slices() -> None:
    due, ended = queue(0.9)
    seen = slices(due, ended, WINDOW_MS)

    assert len(seen.arrived) == SLICES
    assert seen.arrived.sum() == np.count_nonzero((due >= 0) & (due < WINDOW_MS))
    assert seen.ended.sum() == np.count_nonzero((ended >= 0) & (ended < WINDOW_MS))
    assert seen.backlog[-1] == np.count_nonzero(due < WINDOW_MS) - np.count_nonzero(ended < WINDOW_MS)
