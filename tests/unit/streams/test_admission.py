"""Who waits for a place before a stream begins, who never does, and what becomes of those who wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.admission.places import Places
from app.errors import Draining, Overloaded
from app.events import Failed
from app.streams.log import START
from app.streams.reader import Reader
from tests.support.asgi import Peer, until
from tests.support.providers import DONE, FOREVER, Steps, tokens
from tests.support.worker import LONG, PRINCIPAL, Worker, worker


@asynccontextmanager
async def busy(waiting_max: int = 4, wait_seconds: float = LONG) -> AsyncIterator[tuple[Worker, Reader]]:
    """A worker of one place, and the reader of the stream that has it."""
    places = Places(1, waiting_max, wait_seconds)
    async with worker(places=places) as here:
        yield here, await here.open(Steps(*tokens(1), FOREVER))


def end(here: Worker, reader: Reader) -> None:
    here.streams.cancel_here(here.streams.live[reader.record.stream_id])


async def test_a_stream_that_waited_begins_when_another_ends_and_gives_its_place_back() -> None:
    async with busy() as (here, first):
        provider = Steps(*tokens(3), DONE)
        second = asyncio.create_task(here.open(provider))
        await until(lambda: here.streams.places.waiting == 1)
        assert provider.started == 0
        end(here, first)
        events = await here.read(await asyncio.wait_for(second, 5))
        assert len(events) == 4
        assert here.streams.places.active == 0
        here.streams.detach(first)


async def test_a_place_is_given_back_however_a_generation_ends() -> None:
    async with worker(places=Places(1, 0, LONG)) as here:
        for provider in (Steps(DONE), Steps(RuntimeError("a defect")), Steps(*tokens(2), OSError("gone"))):
            await here.read(await here.open(provider))
            assert here.streams.places.active == 0
        reader = await here.open(Steps(*tokens(1), FOREVER))
        here.streams.detach(reader)  # nobody reads: it is cancelled
        await until(lambda: here.streams.places.active == 0)


async def test_a_client_that_leaves_while_it_waits_leaves_the_queue_and_nothing_begins() -> None:
    async with busy() as (here, first):
        provider, peer = Steps(DONE), Peer()
        call = here.serve(provider, peer)
        await until(lambda: here.streams.places.waiting == 1)
        peer.leave()
        await asyncio.wait_for(call, 5)
        assert (here.streams.places.waiting, peer.status) == (0, 0)
        assert peer.note["outcome"] == "client_cancelled"
        end(here, first)
        await until(lambda: here.streams.places.active == 0)
        assert provider.started == 0
        here.streams.detach(first)


async def test_a_wait_that_is_over_is_an_error_of_its_own_and_not_a_stream() -> None:
    async with busy(wait_seconds=0.05) as (here, first):
        provider = Steps(DONE)
        with pytest.raises(Overloaded):
            await here.open(provider)
        assert (provider.started, len(here.streams.live), here.opener.queued) == (0, 1, {})
        here.streams.detach(first)


async def test_whoever_joins_a_stream_by_its_key_does_not_wait() -> None:
    async with worker(places=Places(1, 0, LONG)) as here:
        first = await here.open(Steps(*tokens(1), FOREVER), key="k")
        joined = await asyncio.wait_for(here.open(Steps(DONE), key="k"), 5)
        assert joined.record == first.record
        with pytest.raises(Overloaded):
            await here.open(Steps(DONE), key="another")
        for reader in (first, joined):
            here.streams.detach(reader)
        await until(lambda: here.streams.places.active == 0)


async def test_whoever_resumes_does_not_wait() -> None:
    async with busy(waiting_max=0) as (here, first):
        again = await asyncio.wait_for(here.streams.attach(first.record.stream_id, PRINCIPAL, START), 5)
        for reader in (first, again):
            here.streams.detach(reader)


async def test_the_stream_of_the_higher_priority_begins_first() -> None:
    async with busy() as (here, first):
        order: list[str] = []
        waiting = [
            asyncio.create_task(here.open(Steps(lambda name=name: order.append(name), DONE), priority=priority))  # type: ignore[misc]
            for name, priority in (("free", 0), ("enterprise", 9), ("pro", 5))
        ]
        await until(lambda: here.streams.places.waiting == 3)
        end(here, first)
        for reader in await asyncio.wait_for(asyncio.gather(*waiting), 5):
            await here.read(reader)
        assert order == ["enterprise", "pro", "free"]
        here.streams.detach(first)


async def test_one_principal_that_asks_for_much_does_not_keep_another_waiting() -> None:
    async with busy(waiting_max=8) as (here, first):
        order: list[str] = []

        def provider(name: str) -> Steps:
            return Steps(lambda: order.append(name), DONE)

        waiting = [asyncio.create_task(here.open(provider("greedy"), principal="greedy")) for _ in range(6)]
        await until(lambda: here.streams.places.waiting == 6)
        waiting.append(asyncio.create_task(here.open(provider("modest"), principal="modest")))
        await until(lambda: here.streams.places.waiting == 7)
        end(here, first)
        for reader in await asyncio.wait_for(asyncio.gather(*waiting), 5):
            await here.read(reader)
        assert order.index("modest") == 1
        here.streams.detach(first)


async def test_a_pod_that_drains_begins_nothing_of_what_waited() -> None:
    async with busy() as (here, first):
        provider = Steps(DONE)
        waiting = asyncio.create_task(here.open(provider))
        await until(lambda: here.streams.places.waiting == 1)
        here.streams.pod_draining = lambda: True
        end(here, first)
        with pytest.raises(Draining):
            await asyncio.wait_for(waiting, 5)
        assert (provider.started, here.streams.places.active) == (0, 0)
        here.streams.detach(first)


async def test_what_nobody_waits_for_begins_at_once_and_its_heartbeats_say_how_many_are_before_it() -> None:
    async with busy(wait_seconds=0.01) as (here, first):
        here.heartbeat_seconds = 0.05
        provider = Steps(*tokens(2), DONE)
        ahead = await here.open(Steps(DONE), background=True)
        reader = await here.open(provider, background=True)
        peer = Peer()
        call = here.follow(reader.record.stream_id, peer)
        await until(lambda: peer.body.count(b": waiting behind 1\n: ping\n\n") >= 2)
        assert provider.started == 0
        end(here, first)
        await asyncio.wait_for(call, 5)
        assert [frame.event for frame in peer.frames] == ["token", "token", "done"]
        assert b"waiting" not in peer.body.partition(b"event: token")[2]
        for each in (first, ahead, reader):
            here.streams.detach(each)


async def test_what_waits_in_the_background_can_be_cancelled_and_leaves_the_queue() -> None:
    async with busy() as (here, first):
        provider = Steps(DONE)
        reader = await here.open(provider, background=True)
        await here.streams.cancel(reader.record.stream_id, PRINCIPAL)
        events = await here.read(reader)
        assert [event.code for event in events if isinstance(event, Failed)] == ["cancelled"]
        assert (here.streams.places.waiting, here.streams.places.active, provider.started) == (0, 1, 0)
        here.streams.detach(first)


async def test_what_waits_in_the_background_for_a_lifetime_ends_in_an_error() -> None:
    places = Places(1, 4, LONG)
    async with worker(places=places, stream_seconds_max=0.2) as here:
        held = places.take_now("somebody")
        assert held is not None
        reader = await here.open(Steps(DONE), background=True)
        events = await here.read(reader)
        assert [event.code for event in events if isinstance(event, Failed)] in (["overloaded"], ["limit_exceeded"])
        assert places.waiting == 0
        held.leave()
