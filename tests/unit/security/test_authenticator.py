"""Who asks, where nobody is told from others."""

from dataclasses import dataclass, field
from time import time
from typing import Any

import msgspec
import pytest

from app.errors import Forbidden, Unauthorized
from app.limits.memory_counters import MemoryCounters
from app.scope import take_opened
from app.security.address import Addresses
from app.security.authenticator import ANONYMOUS, Authenticator
from app.security.bearer import Bearer
from app.security.principal import Opening, Principal, TicketKind
from app.security.tickets import Tickets
from app.tiers import EXAMPLES


@pytest.mark.parametrize("shown", [{}, {"authorization": "Bearer none"}, {"x-api-key": "x"}, {"authorization": "?"}])
async def test_without_anybody_to_know_everybody_is_anonymous_whatever_an_sdk_sends(shown: dict[str, str]) -> None:
    authenticator = Authenticator(
        False, EXAMPLES, Addresses(), Bearer((), EXAMPLES), Tickets(MemoryCounters(), 60.0, 900.0)
    )
    headers = [(name.encode(), value.encode()) for name, value in shown.items()]
    assert await authenticator.identify({"headers": headers, "query_string": b""}) is ANONYMOUS


@dataclass
class Keys:
    """Where API keys are looked up."""

    owners: dict[bytes, Principal] = field(default_factory=dict)

    async def find(self, digest: bytes) -> Principal | None:
        return self.owners.get(digest)


ANA = Principal.of("key:ana", "pro", EXAMPLES["pro"])
KEY = b"k" * 32
KINDS: tuple[TicketKind, ...] = ("create", "stream", "conversation")
CONVERSATION = Opening("conversation", "c1")


async def by_ticket(authenticator: Authenticator, who: Principal, opening: Opening) -> dict[str, Any]:
    ticket = await authenticator.tickets.issue(who, opening)
    return {"headers": [], "query_string": f"ticket={ticket}".encode()}


def authenticator_of(keys: Any) -> Authenticator:
    tickets = Tickets(MemoryCounters(), 60.0, 900.0)
    return Authenticator(True, EXAMPLES, Addresses(), Bearer((), EXAMPLES), tickets, None, keys)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_ticket_is_as_good_as_the_key_that_it_was_asked_for_with(kind: Any) -> None:
    keys = Keys({KEY: ANA})
    authenticator = authenticator_of(keys)
    scope = await by_ticket(authenticator, ANA.by_key(KEY), Opening(kind, "x" * 24))
    assert (await authenticator.identify(scope, KINDS)).key == KEY
    del keys.owners[KEY]
    with pytest.raises(Unauthorized):
        await authenticator.identify(scope, KINDS)


async def test_a_conversations_ticket_ends_with_the_token_that_it_was_asked_for_with() -> None:
    authenticator = authenticator_of(Keys())
    who = msgspec.structs.replace(ANA, expires_at=time() + 60)
    found = await authenticator.identify(await by_ticket(authenticator, who, CONVERSATION), KINDS)
    assert found.seconds_left is not None
    assert 50 < found.seconds_left <= 60
    late = msgspec.structs.replace(ANA, expires_at=time() - 1)
    with pytest.raises(Unauthorized):
        await authenticator.identify(await by_ticket(authenticator, late, CONVERSATION), KINDS)


async def test_what_a_ticket_reads_is_read_to_its_end() -> None:
    """An `EventSource` cannot show another: it would come back with the same one for ever."""
    authenticator = authenticator_of(Keys())
    who = msgspec.structs.replace(ANA, expires_at=time() + 1)
    scope = await by_ticket(authenticator, who, Opening("create", "x" * 24))
    assert (await authenticator.identify(scope, KINDS)).seconds_left is None


async def test_a_ticket_is_opened_once_and_by_nobody_who_may_not_have_what_it_opens() -> None:
    authenticator = authenticator_of(Keys())
    scope = await by_ticket(authenticator, ANA, CONVERSATION)
    with pytest.raises(Forbidden):
        await authenticator.identify(scope, ["create"])
    assert take_opened(scope) is None
    await authenticator.identify(scope, KINDS)
    tell = take_opened(scope)
    assert tell is not None
    assert take_opened(scope) is None
    await tell()
    assert (await authenticator.identify(scope, KINDS)).opening == msgspec.structs.replace(CONVERSATION, opened=True)
    assert take_opened(scope) is None
