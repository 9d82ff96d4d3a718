"""Who asks, by whatever they show: an API key, a bearer token or a ticket."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Protocol
from urllib.parse import parse_qs

from starlette.types import Scope

from app.errors import Forbidden, Unauthorized
from app.scope import set_headers, when_opened
from app.security.address import Addresses
from app.security.api_keys import Keys, digest_of, find_key
from app.security.bearer import Bearer
from app.security.principal import Principal, TicketKind
from app.security.tickets import Tickets
from app.security.watched import Watched
from app.tiers import UNBOUNDED, Tier

ANONYMOUS = Principal.of("anonymous", "none", UNBOUNDED)
_CHALLENGE = (b"www-authenticate", b'Bearer realm="sluice"')
_INVALID = (b"www-authenticate", b'Bearer realm="sluice", error="invalid_token"')

QUERY_FIELDS_MAX = 100


class KeyLookup(Protocol):
    """Keys that are elsewhere than in a file."""

    async def find(self, digest: bytes) -> Principal | None: ...


class Authenticator:
    """One for each worker.

    Args:
        required: without it, and without credentials, everybody is `ANONYMOUS`: for development.
        keys: of the file, where there is one.
        more_keys: asked for what the file does not have.
    """

    def __init__(
        self,
        required: bool,
        tiers: Mapping[str, Tier],
        addresses: Addresses,
        bearer: Bearer,
        tickets: Tickets,
        keys: Watched[Keys] | None = None,
        more_keys: KeyLookup | None = None,
    ) -> None:
        self.required = required
        self.addresses = addresses
        self.tickets = tickets
        self._tiers = tiers
        self._bearer = bearer
        self._keys = keys
        self._more_keys = more_keys

    async def identify(self, scope: Scope, openings: Collection[TicketKind] = ()) -> Principal:
        """Who asks.

        Args:
            openings: the kinds of tickets that open the route; where there is none, a ticket is nothing.

        Raises:
            Unauthorized: nobody that is known, or what was shown is not valid.
            Forbidden: a ticket that opens something else.
            IdentityUnavailable: it cannot be found out just now.
        """
        try:
            # Where nothing is asked for, nothing is looked at: SDKs always send a key of some kind.
            shown = _shown(scope) if self.required else None
            if shown is not None:
                return await self.principal(shown)
            if openings and (ticket := _ticket(scope)) is not None:
                return await self._by_ticket(scope, ticket, openings)
        except Unauthorized:
            set_headers(scope, [_INVALID])
            raise
        if self.required:
            set_headers(scope, [_CHALLENGE])
            raise Unauthorized("Credentials are needed: an API key or a token, as Authorization: Bearer.")
        return ANONYMOUS

    async def identify_any(self, scope: Scope) -> Principal | None:
        """Who asks; None where nothing was shown and something would have to be.

        Raises:
            Unauthorized: what was shown is not valid.
            IdentityUnavailable: it cannot be found out just now.
        """
        if self.required and _shown(scope) is None:
            return None
        return await self.identify(scope)

    async def principal(self, credential: str) -> Principal:
        """Whose key or token it is.

        Raises:
            Unauthorized, IdentityUnavailable
        """
        # A key of ours has no dot.
        if credential.count(".") == 2 and credential.startswith("ey"):
            return await self._bearer.principal(credential)
        found = await self.key_owner(credential)
        if found is None:
            raise Unauthorized("The API key is not valid.")
        return found

    async def key_owner(self, key: str) -> Principal | None:
        """Whose API key it is.

        Raises:
            IdentityUnavailable
        """
        digest = digest_of(key)
        return None if digest is None else await self.owner_of(digest)

    async def owner_of(self, digest: bytes) -> Principal | None:
        """Whose API key has this hash.

        Raises:
            IdentityUnavailable
        """
        found = find_key(self._keys.value, digest) if self._keys is not None else None
        if found is None and self._more_keys is not None:
            found = await self._more_keys.find(digest)
        return found

    async def _by_ticket(self, scope: Scope, ticket: str, openings: Collection[TicketKind]) -> Principal:
        kept = await self.tickets.find(ticket)
        if kept.opening.kind not in openings:
            raise Forbidden("The ticket is for something else.")
        tier = self._tiers.get(kept.tier_name, UNBOUNDED if not self.required else None)
        if tier is None:
            raise Unauthorized("The ticket is not valid.")
        if kept.key and await self.owner_of(kept.key) is None:
            raise Unauthorized("The key that the ticket was asked for with is not valid any more.")
        found = Principal.of(kept.account, kept.tier_name, tier, kept.expires_at, kept.leeway_seconds)
        if found.seconds_left == 0:
            raise Unauthorized("The ticket has expired.")
        if not kept.opening.opened:
            when_opened(scope, partial(self.tickets.open, ticket, kept))
        return found.by_key(kept.key).by_ticket(kept.opening)


def _shown(scope: Scope) -> str | None:
    """The credential in the headers; None without one.

    Raises:
        Unauthorized: there are several, of which a proxy on the way may have read another.
    """
    bearer: list[bytes] = []
    keys: list[bytes] = []
    for name, value in scope["headers"]:
        if name == b"authorization":
            bearer.append(value)
        elif name == b"x-api-key":
            keys.append(value)
    if len(bearer) > 1 or len(keys) > 1:
        raise Unauthorized("More than one credential.")
    if bearer:
        scheme, _, credential = bearer[0].decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not credential.strip():
            raise Unauthorized("Authorization: Bearer is what is taken here.")
        return credential.strip()
    return keys[0].decode("latin-1").strip() if keys else None


def _ticket(scope: Scope) -> str | None:
    query = scope["query_string"]
    if b"ticket=" not in query:
        return None
    try:
        found = parse_qs(query.decode("latin-1"), max_num_fields=QUERY_FIELDS_MAX).get("ticket", [])
    except ValueError:
        return None
    return found[0] if len(found) == 1 else None
