"""What each guard of a stream is for: with it, a client finds nothing wrong; without it, the same client does.

Two workers on one log, and an upstream that never says the same twice, as models do: what the workers named `a` and `b`
have said can be told apart.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from app.streams.committer import Committer
from app.streams.generation import Generation
from app.streams.log import Append, AppendResult, Cursor
from app.streams.memory_log import MemoryLog, _Stream
from tests.support.asgi import no_tasks_left, until
from tests.support.journal import Journal
from tests.support.side import LEASE_SECONDS, Side


@asynccontextmanager
async def two_workers(backend: MemoryLog, wait_at: int) -> AsyncIterator[tuple[Side, Side]]:
    async with no_tasks_left(3.0):
        a, b = Side("a", backend, wait_at), Side("b", backend)
        await a.streams.backend.beat("a")
        await b.streams.backend.beat("b")
        try:
            yield a, b
        finally:
            await a.stop()
            await b.stop()


def wrongs(journal: Journal) -> list[str]:
    """What a client finds wrong, and whether two producers wrote at the same time."""
    names = "".join(token[0] for token in journal.tokens)
    mixed = [f"two producers: {journal.text}"] if "ba" in names else []
    unfinished = [] if journal.end_event == "done" else [f"ended with {journal.end_event} {journal.end}"]
    return [*journal.wrongs, *mixed, *unfinished]


# The fence: whoever was replaced writes nothing more.


class Unfenced(MemoryLog):
    """Takes what anybody brings, at the end, as a plain list would."""

    def append_nowait(self, batch: Sequence[Append]) -> list[AppendResult]:
        moved = []
        for append in batch:
            stream = self._streams[append.stream_id]
            first = Cursor(stream.last.epoch, stream.last.seq + 1)
            moved.append(Append(append.stream_id, stream.fence, first, append.events))
        return super().append_nowait(moved)


async def a_producer_that_stood_still_wakes_up(backend: MemoryLog) -> tuple[list[str], Side]:
    async with two_workers(backend, wait_at=4) as (a, b):
        journal = Journal(stream_id=await a.open())
        await a.read(journal, tokens=3)
        await backend.expire("a")
        await b.read(journal, tokens=5)
        a.talker.go_on.set()
        await b.read(journal)
        await until(lambda: a.talker.closed)
        # Somebody who comes later has everything from the log, and from no worker's memory.
        later = Journal(stream_id=journal.stream_id)
        await Side("c", backend).read(later)
        return [*wrongs(journal), *wrongs(later)], a


async def test_a_producer_that_was_replaced_writes_nothing_more() -> None:
    found, a = await a_producer_that_stood_still_wakes_up(MemoryLog(lease_seconds=LEASE_SECONDS))
    assert found == []
    assert a.talker.closed == 1


async def test_without_the_fence_it_does() -> None:
    found, _ = await a_producer_that_stood_still_wakes_up(Unfenced(lease_seconds=LEASE_SECONDS))
    assert any("two producers" in wrong or "behind" in wrong for wrong in found), found


# Log first, then deliver: what a client has is in the log, whatever dies.


class Stuck(MemoryLog):
    """From the fourth event on, its owner's appends never arrive."""

    def append_nowait(self, batch: Sequence[Append]) -> list[AppendResult] | None:  # type: ignore[override]
        lost = any(append.first.seq >= 4 and append.fence == 1 for append in batch)
        return None if lost else super().append_nowait(batch)

    async def append(self, batch: Sequence[Append]) -> list[AppendResult]:
        await asyncio.Event().wait()
        raise AssertionError("it never returns")


class Hasty(Committer):
    """Delivers what it has not logged."""

    async def _commit_later(self, generations: Sequence[Generation], batch: Sequence[Append]) -> None:
        for generation, append in zip(generations, batch, strict=True):
            generation.committed(append)
        await super()._commit_later(generations, batch)


async def a_worker_dies_between_log_and_delivery() -> list[str]:
    backend = Stuck(lease_seconds=LEASE_SECONDS)
    async with two_workers(backend, wait_at=0) as (a, b):
        journal = Journal(stream_id=await a.open())
        await a.read(journal, tokens=4, seconds=0.6)
        # As kill -9 does: what waits for its commit is gone.
        committer = a.streams.committer
        assert committer._committing is not None
        committer._dirty.clear()
        committer._committing.cancel()
        await a.stop()
        await backend.expire("a")
        patience = [wrong for wrong in journal.wrongs if wrong.startswith("silence")]
        journal.wrongs = [wrong for wrong in journal.wrongs if wrong not in patience]
        await b.read(journal)
        return wrongs(journal)


async def test_every_id_that_a_client_saw_is_in_the_log() -> None:
    assert await a_worker_dies_between_log_and_delivery() == []


async def test_delivered_first_it_may_not_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.streams.registry.Committer", Hasty)
    found = await a_worker_dies_between_log_and_delivery()
    assert any("not in the log" in wrong or "another content" in wrong for wrong in found), found


# The lease: a stream has one producer while that lives, and another one soon after.


class Leaseless(MemoryLog):
    """Nobody ever counts as alive."""

    def _alive_until(self, stream: _Stream) -> float:
        return stream.owned_since


class Immortal(MemoryLog):
    """Nobody ever counts as dead."""

    def _alive_until(self, stream: _Stream) -> float:
        return float("inf")


async def a_living_producer_is_slow(backend: MemoryLog) -> list[str]:
    async with two_workers(backend, wait_at=4) as (a, b):
        journal = Journal(stream_id=await a.open())
        reading = asyncio.create_task(b.read(journal))
        for _ in range(8):
            await backend.beat("a")
            await asyncio.sleep(LEASE_SECONDS / 2)
        a.talker.go_on.set()
        await reading
        generations = a.talker.started + b.talker.started
        return [*wrongs(journal), *([f"{generations} generations"] if generations > 1 else [])]


async def test_a_slow_producer_that_lives_is_left_alone() -> None:
    assert await a_living_producer_is_slow(MemoryLog(lease_seconds=LEASE_SECONDS)) == []


async def test_without_leases_it_would_be_replaced() -> None:
    assert "2 generations" in await a_living_producer_is_slow(Leaseless(lease_seconds=LEASE_SECONDS))


async def a_producer_dies(backend: MemoryLog) -> list[str]:
    async with two_workers(backend, wait_at=4) as (a, b):
        journal = Journal(stream_id=await a.open())
        await a.read(journal, tokens=3)
        await b.read(journal)
        return wrongs(journal)


async def test_a_dead_producer_is_replaced() -> None:
    assert await a_producer_dies(MemoryLog(lease_seconds=LEASE_SECONDS)) == []


async def test_without_an_end_of_leases_it_would_not_be() -> None:
    assert any("silence" in wrong for wrong in await a_producer_dies(Immortal(lease_seconds=LEASE_SECONDS)))
