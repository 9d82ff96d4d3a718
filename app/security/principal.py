"""Who asks: a name that owns streams, and a tier."""

from time import time
from typing import Literal, Self

import msgspec

from app.tiers import Tier

TicketKind = Literal["create", "stream", "conversation"]


class Opening(msgspec.Struct, frozen=True):
    """The one thing that a ticket opens.

    Args:
        target: the stream or the conversation. One that creates has a name of its own, by which its stream is known.
        opened: it was, by an earlier request.
    """

    kind: TicketKind
    target: str
    opened: bool = False


class Principal(msgspec.Struct, frozen=True):
    """A caller that is known.

    Args:
        account: its name: the owner of its streams, and what its limits are counted under. Of one namespace for all
            kinds: `key:<name>`, `user:<name>`, `<issuer>:<sub>`, `anonymous`.
        rates: the tier's request limits, made once.
        expires_at: Unix time at which what it showed is no longer valid; 0 for never.
        leeway_seconds: for which it is taken nevertheless, as clocks differ.
        key: the hash of the API key that it showed, if that is what it did: a key can be withdrawn.
        opening: set where it came by a ticket, and may do nothing else.
    """

    account: str
    tier_name: str
    tier: Tier
    rates: str = ""
    expires_at: float = 0.0
    opening: Opening | None = None
    leeway_seconds: float = 0.0
    key: bytes = b""

    @classmethod
    def of(cls, account: str, tier_name: str, tier: Tier, expires_at: float = 0.0, leeway_seconds: float = 0.0) -> Self:
        return cls(account, tier_name, tier, tier.rates, expires_at, None, leeway_seconds)

    def by_key(self, digest: bytes) -> "Principal":
        """The same, who showed that API key."""
        return msgspec.structs.replace(self, key=digest)

    @property
    def seconds_left(self) -> float | None:
        """For how long what it showed is good; None for ever."""
        return max(0.0, self.expires_at + self.leeway_seconds - time()) if self.expires_at else None

    def by_ticket(self, opening: Opening) -> "Principal":
        """The same, restricted to what a ticket opens."""
        return msgspec.structs.replace(self, opening=opening)
