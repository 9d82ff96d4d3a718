"""API keys in Redis, for fleets whose keys come and go: each under its hash, changed by whoever may write there.

    a:<sha256 of the key, hex>   hash: p principal, t tier, nb and x Unix times before and from which it is not valid

Below the prefix `sluice:{b<n>}:` of the hash's bucket. What was looked up is believed for some seconds, and for longer
while Redis is away: an outage locks nobody out who was in.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from time import monotonic
from time import time as now
from typing import Self

import structlog

from app.errors import IdentityUnavailable, LogUnavailable
from app.security.principal import Principal
from app.streams.redis.buckets import Buckets
from app.streams.redis.script import Script
from app.streams.redis.topology import Connector, topology_of
from app.streams.redis.url import parse_redis_url
from app.tiers import LEAST_TIER, Tier

log = structlog.get_logger(__name__)

COMMAND_SECONDS = 0.1
CONNECTIONS_MAX = 2
# A key that was withdrawn is of use for as long as the first; one that was just made is refused for the second, once
# somebody has tried it too early.
BELIEVED_SECONDS = 5.0
REFUSED_SECONDS = 1.0
AWAY_SECONDS_MAX = 900.0
KNOWN_MAX = 20_000


def _script(text: str) -> Script:
    return Script(text.encode(), hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest().encode())


# ARGV: server, hash.
FIND = _script("return redis.call('HMGET', KEYS[1] .. 'a:' .. ARGV[2], 'p', 't', 'nb', 'x')")
# ARGV: server, hash, principal, tier, not before, expires; without a principal it is withdrawn.
PUT = _script("""
local key = KEYS[1] .. 'a:' .. ARGV[2]
if ARGV[3] == '' then return redis.call('DEL', key) end
return redis.call('HSET', key, 'p', ARGV[3], 't', ARGV[4], 'nb', ARGV[5], 'x', ARGV[6])
""")


class RedisKeys:
    """Looks keys up; `open` comes first.

    Args:
        url: see `app.streams.redis.url`.
        tiers: by name; a key of a tier that there is not gets the least.
        on_silence: told when Redis did not answer, for others who would ask it next: a request waits for it once.
    """

    def __init__(self, url: str, tiers: Mapping[str, Tier], on_silence: Callable[[], None] = lambda: None) -> None:
        self._on_silence = on_silence
        connector = Connector(parse_redis_url(url), COMMAND_SECONDS)
        self._buckets = Buckets(connector, topology_of(connector, COMMAND_SECONDS), COMMAND_SECONDS, CONNECTIONS_MAX)
        self._tiers = tiers
        self._known: OrderedDict[bytes, tuple[Principal | None, float, float]] = OrderedDict()

    async def open(self) -> Self:
        """Connect.

        Raises:
            LogUnavailable: the server does not answer.
        """
        try:
            await self._buckets.connect()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def find(self, digest: bytes) -> Principal | None:
        """Whose key has this hash.

        Raises:
            IdentityUnavailable: Redis does not answer, and the key was not seen lately.
        """
        known = self._known.get(digest)
        if known is not None:
            principal, not_before, asked_at = known
            believed = REFUSED_SECONDS if principal is None else BELIEVED_SECONDS
            if monotonic() - asked_at < believed:
                return _valid(principal, not_before)
        try:
            principal, not_before = await self._look_up(digest)
        except LogUnavailable as error:
            self._on_silence()
            if known is not None and known[0] is not None and monotonic() - known[2] < AWAY_SECONDS_MAX:
                return _valid(known[0], known[1])
            log.warning("api keys unavailable", detail=error.detail or error.message)
            raise IdentityUnavailable("The key cannot be checked just now.", retry_after_seconds=2) from error
        self._known[digest] = (principal, not_before, monotonic())
        self._known.move_to_end(digest)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return _valid(principal, not_before)

    async def put(self, digest: bytes, principal: str, tier: str, not_before: float = 0, expires: float = 0) -> None:
        """Keep a key; without a principal, withdraw it."""
        name = digest.hex()
        await self._buckets.of(name).call(PUT, name, principal, tier, f"{not_before:.0f}", f"{expires:.0f}")

    async def aclose(self) -> None:
        await self._buckets.aclose()

    async def _look_up(self, digest: bytes) -> tuple[Principal | None, float]:
        name = digest.hex()
        principal, tier, not_before, expires = await self._buckets.of(name).call(FIND, name)
        if not principal:
            return None, 0.0
        tier_name = (tier or b"").decode()
        if tier_name not in self._tiers:
            log.warning("api key names no tier that there is", tier=tier_name, principal=principal.decode())
            tier_name = LEAST_TIER
        found = Principal.of(f"key:{principal.decode()}", tier_name, self._tiers[tier_name], float(expires or 0))
        return found.by_key(digest), float(not_before or 0)


def _valid(principal: Principal | None, not_before: float) -> Principal | None:
    at = now()
    if principal is None or not_before > at or 0 < principal.expires_at <= at:
        return None
    return principal
