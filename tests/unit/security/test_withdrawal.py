"""Whose key is withdrawn leaves; whose key cannot be asked for just now stays, as does who came without one."""

from collections.abc import Mapping
from typing import Any

from app.errors import IdentityUnavailable
from app.security.principal import Principal
from app.security.withdrawal import Withdrawal
from app.tiers import EXAMPLES

BROKEN = b"broken"
ANA = Principal.of("key:ana", "pro", EXAMPLES["pro"])


class Open:
    """A connection that is open."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.left: list[str] = []

    def leave(self, reason: str) -> None:
        self.left.append(reason)


class Store:
    """Keys of a server that may be away; counts how often it is asked."""

    def __init__(self, owners: Mapping[bytes, Principal | None]) -> None:
        self.owners = owners
        self.away = False
        self.asked = 0

    async def owner_of(self, digest: bytes) -> Principal | None:
        self.asked += 1
        if self.away:
            raise IdentityUnavailable("Not just now.")
        if digest == BROKEN:
            raise ValueError("could not convert string to float: '2027-01-01'")
        return self.owners[digest]


def opened(store: Store, *keys: bytes) -> tuple[Withdrawal, list[Open]]:
    connections = [Open(key) for key in keys]
    found: Any = connections
    return Withdrawal(lambda: found, store.owner_of), connections


async def test_all_that_a_withdrawn_key_opened_is_ended_and_nothing_else() -> None:
    store = Store({b"good": ANA, b"gone": None})
    withdrawal, connections = opened(store, b"good", b"gone", b"", b"gone")
    await withdrawal.look()
    assert [connection.left for connection in connections] == [[], ["reauthenticate"], [], ["reauthenticate"]]
    assert store.asked == 2


async def test_an_outage_ends_no_connection_and_is_met_once() -> None:
    store = Store({b"one": ANA, b"two": ANA, b"three": ANA})
    withdrawal, connections = opened(store, b"one", b"two", b"three")
    store.away = True
    await withdrawal.look()
    assert [connection.left for connection in connections] == [[], [], []]
    assert store.asked == 1


async def test_a_record_that_cannot_be_read_shields_no_other_key() -> None:
    store = Store({b"good": ANA, b"gone": None})
    withdrawal, connections = opened(store, BROKEN, b"gone", b"good")
    await withdrawal.look()
    assert [connection.left for connection in connections] == [[], ["reauthenticate"], []]
