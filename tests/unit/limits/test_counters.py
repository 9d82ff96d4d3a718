"""What every store of accounts does: looks at all limits at once, takes all or nothing, and lets go in time."""

import asyncio
from time import monotonic

from app.limits.account import ACCEPTED, NO_SLOT, Return
from app.limits.counters import Counters
from tests.unit.limits.stores import ask, cost

# Of a window short enough to be waited for.
SHORT_MS = 1_000


async def test_a_limit_is_the_number_that_gets_through(store: Counters) -> None:
    outcomes = [(await store.take(ask(cost(3)))).refused for _ in range(5)]
    assert outcomes == [ACCEPTED, ACCEPTED, ACCEPTED, 0, 0]


async def test_accounts_do_not_count_for_each_other(store: Counters) -> None:
    assert (await store.take(ask(cost(1), key="key:ana"))).refused == ACCEPTED
    assert (await store.take(ask(cost(1), key="key:bob"))).refused == ACCEPTED
    assert (await store.take(ask(cost(1), key="key:ana"))).refused == 0


async def test_what_is_refused_by_one_limit_takes_nothing_of_the_others(store: Counters) -> None:
    minute, hour = cost(1), cost(5, name="h", window_ms=3_600_000)
    await store.take(ask(hour, minute))
    for _ in range(5):
        assert (await store.take(ask(hour, minute, slot="s", slots_max=9))).refused == 1
    taken = await store.take(ask(hour, slot="t", slots_max=9))
    assert (taken.shares[0].used, taken.slots) == (2, 1)


async def test_the_first_of_several_refusals_is_named_and_each_says_when(store: Counters) -> None:
    await store.take(ask(cost(1), cost(1, name="h", window_ms=3_600_000)))
    taken = await store.take(ask(cost(1), cost(1, name="h", window_ms=3_600_000)))
    assert taken.refused == 0
    assert 0 < taken.shares[0].retry_ms <= 120_000 < taken.shares[1].retry_ms <= 7_200_000


async def test_a_refused_request_fits_when_it_was_told_and_not_long_before(store: Counters) -> None:
    for _ in range(4):
        await store.take(ask(cost(4, window_ms=SHORT_MS)))
    refused = await store.take(ask(cost(4, window_ms=SHORT_MS)))
    retry_ms = refused.shares[0].retry_ms
    assert 0 < retry_ms <= 2 * SHORT_MS
    began = monotonic()
    while (await store.take(ask(cost(4, window_ms=SHORT_MS)))).refused != ACCEPTED:
        await asyncio.sleep(0.01)
        assert monotonic() - began < 2 * retry_ms / 1000 + 1
    assert monotonic() - began > retry_ms / 1000 - 0.1


async def test_the_beginning_of_a_window_lets_no_second_burst_through(store: Counters) -> None:
    """A counter that begins anew at each full minute lets twice as many through around it."""
    times: list[float] = []
    until = monotonic() + 3.2
    while monotonic() < until:
        if (await store.take(ask(cost(20, window_ms=SHORT_MS)))).refused == ACCEPTED:
            times.append(monotonic())
        await asyncio.sleep(0.005)
    worst = max(sum(1 for time in times if first <= time < first + 0.1 * SHORT_MS / 1000) for first in times)
    assert worst <= 24
    assert 40 <= len(times) <= 85


async def test_what_is_wanted_is_cut_to_what_is_left_but_not_below_the_least(store: Counters) -> None:
    first = await store.take(ask(cost(100, 80, 10)))
    second = await store.take(ask(cost(100, 80, 10)))
    third = await store.take(ask(cost(100, 80, 10)))
    assert [taken.shares[0].granted for taken in (first, second, third)] == [80, 20, 0]
    assert third.refused == 0


async def test_what_is_given_back_can_be_taken_again(store: Counters) -> None:
    taken = await store.take(ask(cost(100, 90)))
    await store.give_back([Return("key:ana", "r", 60_000, taken.shares[0].window, 60)])
    again = await store.take(ask(cost(100, 60)))
    assert (again.refused, again.shares[0].used) == (ACCEPTED, 90)


async def test_more_than_was_taken_can_be_owed(store: Counters) -> None:
    taken = await store.take(ask(cost(100, 50)))
    await store.give_back([Return("key:ana", "r", 60_000, taken.shares[0].window, -49)])
    assert (await store.take(ask(cost(100, 2)))).refused == 0
    assert (await store.take(ask(cost(100, 1)))).refused == ACCEPTED


async def test_what_was_taken_in_a_window_that_is_over_is_not_given_back_twice(store: Counters) -> None:
    taken = await store.take(ask(cost(100, 90)))
    await store.give_back([Return("key:ana", "r", 60_000, taken.shares[0].window - 2, 90)])
    assert (await store.take(ask(cost(100, 20)))).refused == 0


async def test_slots_are_bounded_and_freed(store: Counters) -> None:
    for slot in ("a", "b"):
        assert (await store.take(ask(slot=slot, slots_max=2))).refused == ACCEPTED
    assert (await store.take(ask(slot="c", slots_max=2))).refused == NO_SLOT
    await store.give_back([Return("key:ana", "", 0, 0, 0, "a")])
    taken = await store.take(ask(slot="c", slots_max=2))
    assert (taken.refused, taken.slots) == (ACCEPTED, 2)


async def test_a_slot_that_is_held_already_costs_nothing_more(store: Counters) -> None:
    await store.take(ask(cost(1), slot="a", slots_max=1))
    again = await store.take(ask(cost(1), slot="a", slots_max=1))
    assert (again.refused, again.joined, again.slots) == (ACCEPTED, True, 1)


async def test_a_slot_lapses_unless_it_is_renewed(store: Counters) -> None:
    for slot in ("a", "b"):
        await store.take(ask(slot=slot, slots_max=2, slot_ms=300))
    await store.renew([("key:ana", "a")], 10_000)
    await asyncio.sleep(0.4)
    taken = await store.take(ask(slot="c", slots_max=2))
    assert (taken.refused, taken.slots) == (ACCEPTED, 2)
    assert (await store.take(ask(slot="d", slots_max=2))).refused == NO_SLOT


async def test_a_slot_that_lapsed_is_held_again_once_it_is_renewed(store: Counters) -> None:
    await store.take(ask(slot="a", slots_max=1, slot_ms=100))
    await asyncio.sleep(0.2)
    await store.renew([("key:ana", "a"), ("key:bob", "z")], 10_000)
    assert (await store.take(ask(slot="b", slots_max=1))).refused == NO_SLOT
    assert (await store.take(ask(slot="b", slots_max=1, key="key:bob"))).refused == NO_SLOT


async def test_of_many_at_once_exactly_as_many_get_through(store: Counters) -> None:
    asked = [store.take(ask(cost(1000), slot=f"s{number}", slots_max=7)) for number in range(60)]
    outcomes = [taken.refused for taken in await asyncio.gather(*asked)]
    assert outcomes.count(ACCEPTED) == 7
    assert (await store.take(ask(cost(1000)))).shares[0].used == 8


async def test_many_slots_are_renewed_and_freed_in_bounded_calls(store: Counters) -> None:
    slots = [("key:ana", f"s{number}") for number in range(4_000)]
    await store.renew(slots, 30_000)
    assert (await store.take(ask(slot="x", slots_max=4_000))).refused == NO_SLOT
    await store.give_back([Return(key, "", 0, 0, 0, slot) for key, slot in slots])
    assert (await store.take(ask(slot="x", slots_max=4_000))).slots == 1


async def test_a_ticket_is_found_as_it_was_kept_last(store: Counters) -> None:
    await store.keep_ticket("d1", b"value", 30)
    assert [await store.find_ticket("d1") for _ in range(2)] == [b"value"] * 2
    await store.keep_ticket("d1", b"another", 30)
    assert await store.find_ticket("d1") == b"another"
    assert await store.find_ticket("d2") is None


async def test_a_ticket_lasts_as_long_as_was_said_last_however_often_it_is_looked_at(store: Counters) -> None:
    await store.keep_ticket("late", b"v", 0.2)
    await store.keep_ticket("kept anew", b"v", 0.2)
    await store.find_ticket("late")
    await store.keep_ticket("kept anew", b"w", 30)
    await asyncio.sleep(0.3)
    assert await store.find_ticket("late") is None
    assert await store.find_ticket("kept anew") == b"w"


async def test_a_look_says_what_a_request_would_get_and_takes_nothing(store: Counters) -> None:
    wanted = ask(cost(2), slot="a", slots_max=1)
    for _ in range(5):
        looked = await store.take(wanted._replace(look=True))
        assert (looked.refused, looked.slots, looked.shares[0].granted) == (ACCEPTED, 0, 1)
    assert (await store.take(wanted)).refused == ACCEPTED
    assert (await store.take(ask(cost(2), slot="b", slots_max=1)._replace(look=True))).refused == NO_SLOT
    assert (await store.take(wanted._replace(look=True))).joined
    assert (await store.take(ask(cost(2)))).refused == ACCEPTED
    refused = await store.take(ask(cost(2))._replace(look=True))
    assert refused.refused == 0
    assert refused.shares[0].retry_ms > 0


async def test_tidying_keeps_what_counts(store: Counters) -> None:
    await store.take(ask(cost(1), slot="a", slots_max=1))
    await store.keep_ticket("d1", b"v", 30)
    for _ in range(3):
        await store.tidy()
    assert (await store.take(ask(cost(1)))).refused == 0
    assert (await store.take(ask(slot="b", slots_max=1))).refused == NO_SLOT
    assert await store.find_ticket("d1") == b"v"
