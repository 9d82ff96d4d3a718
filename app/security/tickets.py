"""Tickets for those who cannot set headers, a browser's `EventSource` and `WebSocket`: good for one thing.

A ticket is in an address, and addresses end up in histories and logs. So it is opened within a minute or never, and
whoever finds it later can at most go on reading the one stream that it opened, and not for longer than that is kept.
"""

import secrets
from hashlib import sha256
from typing import Protocol

import msgspec

from app.errors import IdentityUnavailable, LogUnavailable, Unauthorized
from app.security.principal import Opening, Principal

# As long as a page takes from asking for it to using it, on a bad network.
OPEN_SECONDS_MAX = 60
TICKET_CHARACTERS = 43


class TicketStore(Protocol):
    """See `app.limits.counters`, where tickets are kept with accounts."""

    async def keep_ticket(self, digest: str, value: bytes, seconds: float) -> None: ...

    async def open_ticket(self, digest: str, seconds: float) -> tuple[bytes, bool] | None: ...


class Kept(msgspec.Struct, frozen=True):
    """What is kept of a ticket, under its hash: who asked for it, and until when what he showed is good."""

    account: str
    tier_name: str
    opening: Opening
    key: bytes = b""
    expires_at: float = 0.0
    leeway_seconds: float = 0.0


_kept = msgspec.json.Decoder(Kept)


class Tickets:
    """Issues and takes them.

    Args:
        kept_seconds: how long one that was opened can be shown again: as long as an ended stream can be read.
    """

    def __init__(self, store: TicketStore, kept_seconds: float) -> None:
        self._store = store
        self._kept_seconds = kept_seconds

    async def issue(self, principal: Principal, opening: Opening) -> str:
        """A ticket for one opening.

        Raises:
            IdentityUnavailable: it cannot be kept just now.
        """
        ticket = secrets.token_urlsafe(32)
        # What goes on asking ends with what it was given for; what only reads may read to the end.
        expires_at = principal.expires_at if opening.kind == "conversation" else 0.0
        kept = Kept(
            principal.account, principal.tier_name, opening, principal.key, expires_at, principal.leeway_seconds
        )
        value = msgspec.json.encode(kept)
        try:
            await self._store.keep_ticket(_digest(ticket), value, OPEN_SECONDS_MAX)
        except LogUnavailable as error:
            raise IdentityUnavailable("No tickets just now.", retry_after_seconds=2) from error
        return ticket

    async def take(self, ticket: str) -> Kept:
        """What a ticket opens, the first time and again.

        Raises:
            Unauthorized: it is none, or too late.
            IdentityUnavailable: nobody can say just now.
        """
        if len(ticket) != TICKET_CHARACTERS:
            raise Unauthorized("The ticket is not valid.")
        try:
            found = await self._store.open_ticket(_digest(ticket), self._kept_seconds)
        except LogUnavailable as error:
            raise IdentityUnavailable("The ticket cannot be checked just now.", retry_after_seconds=2) from error
        if found is None:
            raise Unauthorized("The ticket is not valid.")
        return _kept.decode(found[0])


def _digest(ticket: str) -> str:
    return sha256(ticket.encode()).hexdigest()
