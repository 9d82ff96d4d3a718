"""A ticket opens one thing, within its time, and comes out as nothing else."""

import asyncio

import pytest

from app.errors import IdentityUnavailable, LogUnavailable, Unauthorized
from app.limits.memory_counters import MemoryCounters
from app.security.principal import Opening, Principal
from app.security.tickets import Tickets
from app.tiers import EXAMPLES

ANA = Principal.of("key:ana", "pro", EXAMPLES["pro"])
CREATE = Opening("create", "s" * 24)


class Away(MemoryCounters):
    """A store that does not answer."""

    async def keep_ticket(self, digest: str, value: bytes, seconds: float) -> None:
        raise LogUnavailable("No.")

    async def open_ticket(self, digest: str, seconds: float) -> tuple[bytes, bool] | None:
        raise LogUnavailable("No.")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.security.tickets.OPEN_SECONDS_MAX", 0.2)


async def test_a_ticket_says_whose_it_is_and_what_it_opens() -> None:
    tickets = Tickets(MemoryCounters(), 60)
    ticket = await tickets.issue(ANA, CREATE)
    for _ in range(3):
        kept = await tickets.take(ticket)
        assert (kept.account, kept.tier_name, kept.opening) == ("key:ana", "pro", CREATE)


async def test_no_two_tickets_are_alike_and_none_is_kept_as_it_is() -> None:
    store = MemoryCounters()
    tickets = Tickets(store, 60)
    issued = {await tickets.issue(ANA, CREATE) for _ in range(100)}
    assert len(issued) == 100
    assert not issued & set(store._tickets)


@pytest.mark.usefixtures("short")
async def test_a_ticket_that_is_not_opened_in_time_is_none() -> None:
    tickets = Tickets(MemoryCounters(), 60)
    late, opened = await tickets.issue(ANA, CREATE), await tickets.issue(ANA, CREATE)
    await tickets.take(opened)
    await asyncio.sleep(0.3)
    with pytest.raises(Unauthorized):
        await tickets.take(late)
    assert await tickets.take(opened)


async def test_a_ticket_that_was_opened_ends_with_what_it_opened() -> None:
    tickets = Tickets(MemoryCounters(), 0.2)
    ticket = await tickets.issue(ANA, CREATE)
    await tickets.take(ticket)
    await asyncio.sleep(0.3)
    with pytest.raises(Unauthorized):
        await tickets.take(ticket)


@pytest.mark.parametrize("ticket", ["", "x" * 43, "x" * 42, "x" * 100_000, "../../etc/passwd", "\0" * 43])
async def test_what_is_no_ticket_opens_nothing(ticket: str) -> None:
    with pytest.raises(Unauthorized):
        await Tickets(MemoryCounters(), 60).take(ticket)


async def test_a_store_that_is_away_is_not_the_callers_fault() -> None:
    tickets = Tickets(Away(), 60)
    with pytest.raises(IdentityUnavailable):
        await tickets.issue(ANA, CREATE)
    with pytest.raises(IdentityUnavailable):
        await tickets.take("x" * 43)
