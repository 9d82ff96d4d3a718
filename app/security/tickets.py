"""Tickets for those who cannot set headers, a browser's `EventSource` and `WebSocket`: good for one thing.

A ticket is in an address, and addresses end up in histories and logs. So it is opened within a minute or never: not by
being shown, but by the stream that is there for it. Whoever finds it later can at most go on reading the one stream
that it opened, and not for longer than that is kept; or take part in the one conversation, for as long as by a token.
"""

import secrets
from hashlib import sha256
from time import time
from typing import Protocol

import msgspec
import structlog

from app.errors import IdentityUnavailable, LogUnavailable, Unauthorized
from app.security.principal import Opening, Principal

log = structlog.get_logger(__name__)

# As long as a page takes from asking for it to using it, on a bad network.
OPEN_SECONDS_MAX = 60
TICKET_CHARACTERS = 43


class TicketStore(Protocol):
    """See `app.limits.counters`, where tickets are kept with accounts."""

    async def keep_ticket(self, digest: str, value: bytes, seconds: float) -> None: ...

    async def find_ticket(self, digest: str) -> bytes | None: ...


class Kept(msgspec.Struct, frozen=True):
    """What is kept of a ticket, under its hash: who asked for it, and until when it may go on asking."""

    account: str
    tier_name: str
    opening: Opening
    key: bytes = b""
    expires_at: float = 0.0
    leeway_seconds: float = 0.0


_kept = msgspec.json.Decoder(Kept)


class Tickets:
    """Issues and finds them.

    Args:
        kept_seconds: how long one that opened a stream can be shown again: as long as an ended stream can be read.
        asking_seconds: how long one for a conversation is good: as long as a token of ours, which it is in all but
            its form.
    """

    def __init__(self, store: TicketStore, kept_seconds: float, asking_seconds: float) -> None:
        self._store = store
        self._kept_seconds = kept_seconds
        self._asking_seconds = asking_seconds

    async def issue(self, principal: Principal, opening: Opening) -> str:
        """A ticket for one opening.

        Raises:
            IdentityUnavailable: it cannot be kept just now.
        """
        ticket = secrets.token_urlsafe(32)
        expires_at, leeway_seconds = self._end(principal, opening)
        kept = Kept(principal.account, principal.tier_name, opening, principal.key, expires_at, leeway_seconds)
        try:
            await self._keep(ticket, kept, OPEN_SECONDS_MAX)
        except LogUnavailable as error:
            raise IdentityUnavailable("No tickets just now.", retry_after_seconds=2) from error
        return ticket

    async def find(self, ticket: str) -> Kept:
        """What a ticket opens, or has opened. It is no longer good for having been looked at.

        Raises:
            Unauthorized: it is none, or too late.
            IdentityUnavailable: nobody can say just now.
        """
        if len(ticket) != TICKET_CHARACTERS:
            raise Unauthorized("The ticket is not valid.")
        try:
            found = await self._store.find_ticket(_digest(ticket))
        except LogUnavailable as error:
            raise IdentityUnavailable("The ticket cannot be checked just now.", retry_after_seconds=2) from error
        if found is None:
            raise Unauthorized("The ticket is not valid.")
        return _kept.decode(found)

    async def open(self, ticket: str, kept: Kept) -> None:
        """What it is for is there: from now on it is good for that alone, as long as that is kept."""
        opening = msgspec.structs.replace(kept.opening, opened=True)
        # A conversation's ends by `expires_at`, which may be later.
        seconds = max(self._kept_seconds, kept.expires_at + kept.leeway_seconds - time())
        try:
            # Kept anew, since a socket may have waited for its first message for longer than the minute.
            await self._keep(ticket, msgspec.structs.replace(kept, opening=opening), seconds)
        except LogUnavailable as error:
            # What was opened goes on. Shown again within the minute, the ticket is opened then.
            log.warning("a ticket cannot be kept", detail=error.detail or error.message)

    def _end(self, principal: Principal, opening: Opening) -> tuple[float, float]:
        # What only reads may read to the end.
        if opening.kind != "conversation":
            return 0.0, 0.0
        until, left = time() + self._asking_seconds, principal.seconds_left
        if left is not None and left < self._asking_seconds:
            return principal.expires_at, principal.leeway_seconds
        return until, 0.0

    async def _keep(self, ticket: str, kept: Kept, seconds: float) -> None:
        await self._store.keep_ticket(_digest(ticket), msgspec.json.encode(kept), seconds)


def _digest(ticket: str) -> str:
    return sha256(ticket.encode()).hexdigest()
