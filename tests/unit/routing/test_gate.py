"""Places of an upstream: so many at a time, so many who wait, and for so long."""

import asyncio
from time import monotonic

import pytest

from app.errors import UpstreamUnavailable
from app.routing.gate import Gate


async def test_places_are_taken_and_given_back() -> None:
    gate = Gate(2, 0, 1.0)
    await gate.enter()
    assert gate.free
    await gate.enter()
    assert not gate.free
    with pytest.raises(UpstreamUnavailable) as raised:
        await gate.enter()
    assert (raised.value.status, raised.value.retry_after_seconds) == (503, 1)
    gate.leave()
    await gate.enter()


async def test_who_waits_gets_the_next_place_in_turn() -> None:
    gate, order = Gate(1, 5, 5.0), []

    async def take(number: int) -> None:
        await gate.enter()
        order.append(number)
        await asyncio.sleep(0.01)
        gate.leave()

    await asyncio.gather(*[take(number) for number in range(5)])
    assert order == [0, 1, 2, 3, 4]
    assert (gate.waiting, gate.free) == (0, True)


async def test_the_queue_is_bounded_in_length_and_time() -> None:
    gate = Gate(1, 1, 0.2)
    await gate.enter()
    started = monotonic()
    waiting = asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    with pytest.raises(UpstreamUnavailable):
        await gate.enter()
    assert monotonic() - started < 0.15
    with pytest.raises(UpstreamUnavailable):
        await waiting
    assert 0.15 <= monotonic() - started < 2
    assert gate.waiting == 0


async def test_who_leaves_the_queue_takes_no_place_with_him() -> None:
    gate = Gate(1, 10, 5.0)
    await gate.enter()
    tasks = [asyncio.create_task(gate.enter()) for _ in range(10)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert gate.waiting == 0
    gate.leave()
    await asyncio.wait_for(gate.enter(), 1)
