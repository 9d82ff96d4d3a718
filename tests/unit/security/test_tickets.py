"""A ticket opens one thing, within its time, and comes out as nothing else."""

import asyncio
from time import time

import msgspec
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

    async def find_ticket(self, digest: str) -> bytes | None:
        raise LogUnavailable("No.")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.security.tickets.OPEN_SECONDS_MAX", 0.2)


def tickets_of(store: MemoryCounters, kept_seconds: float = 60, asking_seconds: float = 60) -> Tickets:
    return Tickets(store, kept_seconds, asking_seconds)


async def test_a_ticket_says_whose_it_is_and_what_it_opens() -> None:
    tickets = tickets_of(MemoryCounters())
    kept = await tickets.find(await tickets.issue(ANA, CREATE))
    assert (kept.account, kept.tier_name, kept.opening) == ("key:ana", "pro", CREATE)


async def test_no_two_tickets_are_alike_and_none_is_kept_as_it_is() -> None:
    store = MemoryCounters()
    tickets = tickets_of(store)
    issued = {await tickets.issue(ANA, CREATE) for _ in range(100)}
    assert len(issued) == 100
    assert not issued & set(store._tickets)


@pytest.mark.usefixtures("short")
async def test_a_ticket_is_not_opened_by_being_shown_and_not_longer_good_for_it() -> None:
    """Whoever showed one for a request that was refused could begin a stream with it an hour later."""
    tickets = tickets_of(MemoryCounters())
    shown = await tickets.issue(ANA, CREATE)
    for _ in range(3):
        assert not (await tickets.find(shown)).opening.opened
    await asyncio.sleep(0.3)
    with pytest.raises(Unauthorized):
        await tickets.find(shown)


@pytest.mark.usefixtures("short")
async def test_a_ticket_that_was_opened_is_known_to_be_and_ends_with_what_it_opened() -> None:
    tickets = tickets_of(MemoryCounters(), kept_seconds=1.5)
    ticket = await tickets.issue(ANA, CREATE)
    await tickets.open(ticket, await tickets.find(ticket))
    await asyncio.sleep(0.3)
    kept = await tickets.find(ticket)
    assert kept.opening == msgspec.structs.replace(CREATE, opened=True)
    await asyncio.sleep(1.5)
    with pytest.raises(Unauthorized):
        await tickets.find(ticket)


@pytest.mark.usefixtures("short")
async def test_a_ticket_that_a_socket_showed_in_time_is_opened_by_its_first_message_however_late() -> None:
    tickets = tickets_of(MemoryCounters())
    ticket = await tickets.issue(ANA, CREATE)
    kept = await tickets.find(ticket)
    await asyncio.sleep(0.3)
    await tickets.open(ticket, kept)
    assert (await tickets.find(ticket)).opening.opened


@pytest.mark.parametrize(("token_seconds", "good_for"), [(None, 900), (60, 60), (10_000, 900)])
async def test_a_conversations_ticket_is_good_as_long_as_a_token_and_no_longer_than_its_own(
    token_seconds: int | None, good_for: int
) -> None:
    tickets = tickets_of(MemoryCounters(), kept_seconds=3600, asking_seconds=900)
    now = time()
    who = ANA if token_seconds is None else msgspec.structs.replace(ANA, expires_at=now + token_seconds)
    kept = await tickets.find(await tickets.issue(who, Opening("conversation", "c1")))
    assert now + good_for <= kept.expires_at + kept.leeway_seconds < now + good_for + 30


async def test_a_conversations_ticket_lives_longer_than_a_stream_is_kept() -> None:
    """A socket that came back within the time that it was promised was told that its ticket is not valid."""
    tickets = tickets_of(MemoryCounters(), kept_seconds=0.1)
    ticket = await tickets.issue(ANA, Opening("conversation", "c1"))
    await tickets.open(ticket, await tickets.find(ticket))
    await asyncio.sleep(0.3)
    assert (await tickets.find(ticket)).opening.opened


@pytest.mark.parametrize("ticket", ["", "x" * 43, "x" * 42, "x" * 100_000, "../../etc/passwd", "\0" * 43])
async def test_what_is_no_ticket_opens_nothing(ticket: str) -> None:
    with pytest.raises(Unauthorized):
        await tickets_of(MemoryCounters()).find(ticket)


async def test_a_store_that_is_away_is_not_the_callers_fault() -> None:
    tickets = tickets_of(Away())
    with pytest.raises(IdentityUnavailable):
        await tickets.issue(ANA, CREATE)
    with pytest.raises(IdentityUnavailable):
        await tickets.find("x" * 43)


async def test_what_a_ticket_opened_goes_on_though_the_ticket_cannot_be_kept() -> None:
    tickets = tickets_of(MemoryCounters())
    kept = await tickets.find(await tickets.issue(ANA, CREATE))
    await tickets_of(Away()).open("x" * 43, kept)
