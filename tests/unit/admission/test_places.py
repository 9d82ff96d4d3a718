"""Places: held by one generation each, waited for in turn, and refused with a reason and a time to come back."""

import asyncio
from contextlib import suppress

import pytest

from app.admission.places import RETRY_AFTER_SECONDS, Place, Places
from app.errors import Overloaded

SOON = 0.02
LONG = 30.0


def full(places_max: int = 1, waiting_max: int = 4, wait_seconds: float = LONG) -> tuple[Places, list[Place]]:
    places = Places(places_max, waiting_max, wait_seconds)
    held = [places.take_now("busy") for _ in range(places_max)]
    return places, [place for place in held if place is not None]


async def test_there_are_so_many_places_and_no_more() -> None:
    places = Places(2, 4, LONG)
    first, second = places.take_now("a"), places.take_now("b")
    assert first is not None
    assert second is not None
    assert places.take_now("c") is None
    first.leave()
    first.leave()
    assert places.active == 1, "twice is once"
    assert places.take_now("c") is not None


async def test_whoever_waits_gets_the_place_that_is_given_back() -> None:
    places, (held,) = full()
    waits: list[float] = []
    places.waited = waits.append
    place = places.queue("a")
    turn = asyncio.create_task(place.turn())
    await asyncio.sleep(SOON)
    assert (places.waiting, place.held) == (1, False)
    held.leave()
    await turn
    assert (places.waiting, place.held, places.active) == (0, True, 1)
    assert len(waits) == 1
    assert SOON * 0.9 < waits[0] < LONG


async def test_nobody_comes_in_past_those_who_wait() -> None:
    places, held_places = full(2)
    places.queue("a")
    places.closed_by = lambda: "pod"
    held_places[0].leave()
    places.closed_by = lambda: None
    assert places.take_now("b") is None, "a place is free, and it is the other's"
    places.admit()
    assert places.waiting == 0


async def test_a_wait_has_a_deadline_and_then_says_when_to_come_back() -> None:
    places, _ = full(wait_seconds=SOON)
    with pytest.raises(Overloaded) as refused:
        await places.queue("a").turn()
    seconds = refused.value.retry_after_seconds
    assert seconds is not None
    assert RETRY_AFTER_SECONDS[0] <= seconds <= RETRY_AFTER_SECONDS[1]
    assert (refused.value.status, refused.value.code, refused.value.retryable) == (503, "overloaded", True)
    assert (places.waiting, places.active, dict(places.shed)) == (0, 1, {"timeout": 1})


async def test_those_who_are_refused_together_are_told_to_come_back_apart() -> None:
    places, _ = full(waiting_max=0)
    told = set()
    for _ in range(200):
        with pytest.raises(Overloaded) as refused:
            places.queue("a")
        told.add(refused.value.retry_after_seconds)
    assert told == set(range(RETRY_AFTER_SECONDS[0], RETRY_AFTER_SECONDS[1] + 1))
    assert places.shed["queue_full"] == 200


async def test_one_who_is_pushed_out_is_refused_at_once() -> None:
    places, _ = full(waiting_max=1)
    low = asyncio.create_task(places.queue("a", priority=0).turn())
    await asyncio.sleep(0)
    high = places.queue("b", priority=9)
    with pytest.raises(Overloaded):
        await asyncio.wait_for(low, 1)
    assert places.waiting == 1
    high.leave()
    assert places.waiting == 0


async def test_whoever_stops_waiting_holds_nothing() -> None:
    places, (held,) = full()
    turn = asyncio.create_task(places.queue("a").turn())
    await asyncio.sleep(0)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert places.waiting == 0
    held.leave()
    assert places.active == 0


async def test_whoever_stops_waiting_when_its_turn_comes_gives_it_to_the_next() -> None:
    for cancel_first in (True, False):
        places, (held,) = full()
        first = asyncio.create_task(places.queue("a").turn())
        second = places.queue("b")
        await asyncio.sleep(0)
        if cancel_first:
            first.cancel()
            held.leave()
        else:
            held.leave()
            first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        await asyncio.wait_for(second.turn(), 1)
        assert (places.active, places.waiting) == (1, 0)


async def test_a_stream_that_is_taken_over_is_let_in_past_all_and_counts() -> None:
    places, (held,) = full()
    taken_over = places.take_past_all()
    assert places.active == 2
    waiting = places.queue("a")
    held.leave()
    assert not waiting.held, "there is one more than there are places"
    taken_over.leave()
    await asyncio.wait_for(waiting.turn(), 1)


async def test_where_the_loop_is_behind_newcomers_are_refused_and_those_who_wait_go_on_waiting() -> None:
    places, _ = full(2)
    waiting = places.queue("a")
    places.closed_by = lambda: "lag"
    assert places.take_now("b") is None
    with pytest.raises(Overloaded):
        places.queue("b")
    assert dict(places.shed) == {"lag": 1}
    assert not waiting.held


async def test_somebody_is_told_how_many_places_are_held() -> None:
    places = Places(2, 0, LONG)
    told: list[int] = []
    places.changed = told.append
    first, second = places.take_now("a"), places.take_past_all()
    assert first is not None
    first.leave()
    second.leave()
    assert told == [1, 2, 1, 0]


async def test_a_place_says_how_many_are_before_it() -> None:
    places, (held,) = full()
    line = [places.queue("a"), places.queue("a"), places.queue("b", priority=1)]
    assert [place.ahead for place in line] == [1, 2, 0]
    held.leave()
    assert [place.ahead for place in line] == [0, 1, 0]
