"""The second guard: an event loop that stays behind; and the places of all workers together."""

import asyncio
import time

from app.admission.places import Places
from app.admission.pulse import LAG_SECONDS_MAX, SAMPLES, Pulse
from tests.support.asgi import until

LATE = LAG_SECONDS_MAX * 1.2


def nobody() -> int:
    return 0


async def test_a_burst_of_lag_closes_nothing_and_one_that_stays_does_until_it_is_over() -> None:
    places = Places(10, 10, 1)
    pulse = Pulse(places, 10, nobody)
    for _ in range(SAMPLES - 1):
        pulse.look(LATE)
    assert places.take_now("a") is not None
    pulse.look(LATE)
    assert places.closed_by() == "lag"
    assert places.take_now("a") is None
    pulse.look(0.001)
    assert places.take_now("a") is not None


async def test_a_loop_that_is_really_held_is_seen_to_be_behind() -> None:
    places = Places(10, 10, 1)
    pulse = Pulse(places, 10, nobody)
    lags: list[float] = []
    pulse.lagged = lags.append
    watching = asyncio.create_task(pulse.run())
    deadline = time.monotonic() + 30
    while not places.closed_by() and time.monotonic() < deadline:
        await asyncio.sleep(0)
        time.sleep(LATE + 0.15)  # noqa: ASYNC251 - as a parser does that holds the loop
    assert places.closed_by() == "lag"
    assert pulse.standing_lag_seconds > LAG_SECONDS_MAX
    await until(lambda: places.closed_by() is None)
    assert max(lags) >= LATE
    watching.cancel()


async def test_workers_of_one_machine_have_their_places_together() -> None:
    elsewhere = 3
    places = Places(4, 4, 30)
    pulse = Pulse(places, 4, lambda: elsewhere)
    # Also before it has looked for the first time.
    held = places.take_now("a")
    assert held is not None
    assert places.take_now("a") is None
    waiting = places.queue("a")
    elsewhere = 2
    assert not waiting.held
    pulse.look(0)
    await asyncio.wait_for(waiting.turn(), 1)
