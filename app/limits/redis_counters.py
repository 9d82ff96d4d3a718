"""Accounts on Redis, for workers of many machines: each verb is one script call, atomic within the account's bucket.

Keys, below the bucket's prefix `sluice:{b<n>}:`

    n:<account>   hash: a limit's name -> `<number of the window> <its count> <that of the window before>`
    u:<account>   sorted set: the slots, by when they lapse (ms of the server's clock)
    k:<digest>    a ticket's value

A key that no longer counts expires by itself.
"""

import hashlib
from collections.abc import Sequence
from typing import Self

from app.errors import LogUnavailable
from app.limits.account import ACCEPTED, Ask, Return, Share, Taken
from app.streams.redis.buckets import Buckets
from app.streams.redis.link import Link
from app.streams.redis.script import Script
from app.streams.redis.topology import Connector, topology_of
from app.streams.redis.url import parse_redis_url
from app.streams.redis.wire import Argument

# A healthy server takes under a millisecond; the rest is for a machine that is busy. What a request may be held up for
# in all is twice this.
COMMAND_SECONDS = 0.15
CONNECTIONS_MAX = 4

_COMMON = """
local prefix = KEYS[1]
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
-- A limit's window as it is now; one that lies ahead, after the clock was set back, stays.
local function rolled(packed, length, now)
  local number, current, previous = string.match(packed or '', '^(%d+) (%d+) (%d+)$')
  local at = math.floor(now / length)
  if not number then return at, 0, 0 end
  number, current, previous = tonumber(number), tonumber(current), tonumber(previous)
  if at <= number then return number, current, previous end
  if at == number + 1 then return at, 0, current end
  return at, 0, 0
end
"""


def _script(body: str) -> Script:
    text = (_COMMON + body).encode()
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


# Refused, joined, slots, then for each cost: granted, used, window, ms until it fits; counted as `account.share` does.
# ARGV: account, slot, most slots, ms of a slot; then for each cost: name, ms of the window, most, wanted, least.
_COUNT = """
local n, u, slot, slots_max, slot_ms = prefix .. 'n:' .. ARGV[2], prefix .. 'u:' .. ARGV[2], ARGV[3],
  tonumber(ARGV[4]), tonumber(ARGV[5])
local now, out, sets, longest = now_ms(), {-1, 0, 0}, {}, 0
for at = 6, #ARGV, 5 do
  local name, length, most, wanted, least = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]),
    tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local number, current, previous = rolled(redis.call('HGET', n, name), length, now)
  local elapsed = math.min(math.max(now - number * length, 0), length)
  local counted = current + previous * (1 - elapsed / length)
  local granted, retry = math.min(wanted, math.floor(most - counted)), 0
  if granted < least then
    granted = 0
    if current + least <= most then
      retry = math.max(1, math.ceil(length * (1 - (most - current - least) / previous)) - elapsed)
    else
      local behind = 0
      if current > 0 then behind = math.max(0, 1 - (most - least) / current) end
      retry = length - elapsed + math.ceil(length * behind)
    end
    if out[1] == -1 then out[1] = (at - 6) / 5 end
  end
  local i = #out
  out[i + 1], out[i + 2], out[i + 3], out[i + 4] = granted, math.ceil(counted) + granted, number, retry
  sets[#sets + 1] = name
  sets[#sets + 1] = string.format('%.0f %.0f %.0f', number, current + granted, previous)
  longest = math.max(longest, length)
end
if slot ~= '' then
  redis.call('ZREMRANGEBYSCORE', u, '-inf', now)
  out[3] = redis.call('ZCARD', u)
  if redis.call('ZSCORE', u, slot) then
    out[1], out[2] = -1, 1
    return out
  end
  if out[1] == -1 and slots_max > 0 and out[3] >= slots_max then out[1] = -2 end
end
"""
LOOK = _script(_COUNT + "return out")
TAKE = _script(
    _COUNT
    + """
if out[1] ~= -1 then return out end
if #sets > 0 then
  redis.call('HSET', n, unpack(sets))
  redis.call('PEXPIRE', n, 2 * longest)
end
if slot ~= '' then
  redis.call('ZADD', u, now + slot_ms, slot)
  redis.call('PEXPIRE', u, 2 * slot_ms)
  out[3] = out[3] + 1
end
return out
"""
)

# ARGV, for each: account, limit's name, ms of its window, window, amount, slot.
GIVE_BACK = _script("""
local now = now_ms()
for at = 2, #ARGV, 6 do
  local n, name, length = prefix .. 'n:' .. ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local taken, amount = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  if ARGV[at + 5] ~= '' then redis.call('ZREM', prefix .. 'u:' .. ARGV[at], ARGV[at + 5]) end
  local packed = amount ~= 0 and redis.call('HGET', n, name)
  if packed then
    local number, current, previous = rolled(packed, length, now)
    if taken == number then current = math.max(0, current - amount) end
    if taken == number - 1 then previous = math.max(0, previous - amount) end
    redis.call('HSET', n, name, string.format('%.0f %.0f %.0f', number, current, previous))
  end
end
return 1
""")

# ARGV: ms, then account and slot of each.
RENEW = _script("""
local until_ms, slot_ms = now_ms() + ARGV[2], ARGV[2]
for at = 3, #ARGV, 2 do
  local u = prefix .. 'u:' .. ARGV[at]
  redis.call('ZADD', u, until_ms, ARGV[at + 1])
  redis.call('PEXPIRE', u, 2 * slot_ms)
end
return 1
""")

# ARGV: digest, value, ms.
KEEP_TICKET = _script("""
redis.call('SET', prefix .. 'k:' .. ARGV[2], ARGV[3], 'PX', ARGV[4])
return 1
""")

# The value; else 0. ARGV: digest.
FIND_TICKET = _script("""
return redis.call('GET', prefix .. 'k:' .. ARGV[2]) or 0
""")

# Arguments of one call. Lua takes some thousands at most.
ARGUMENTS_MAX = 3_000


class RedisCounters:
    """`Counters` on any of the deployments that `app.streams.redis.url` names; `open` comes first."""

    def __init__(self, url: str) -> None:
        try:
            address = parse_redis_url(url)
        except ValueError as error:
            raise LogUnavailable(str(error)) from None
        connector = Connector(address, COMMAND_SECONDS)
        self._buckets = Buckets(connector, topology_of(connector, COMMAND_SECONDS), COMMAND_SECONDS, CONNECTIONS_MAX)

    async def open(self) -> Self:
        """Connect.

        Raises:
            LogUnavailable: the server does not answer; the message says why, without the password.
        """
        try:
            await self._buckets.connect()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def take(self, ask: Ask) -> Taken:
        arguments: list[Argument] = [ask.key, ask.slot, ask.slots_max, ask.slot_ms]
        for limit, wanted, least in ask.costs:
            arguments += (limit.name, limit.window_ms, limit.most, wanted, least)
        refused, joined, slots, *flat = await self._buckets.of(ask.key).call(LOOK if ask.look else TAKE, *arguments)
        shares = tuple(Share(*flat[at : at + 4]) for at in range(0, len(flat), 4))
        return Taken(ACCEPTED if joined else refused, bool(joined), slots, shares)

    async def give_back(self, returns: Sequence[Return]) -> None:
        await self._spread(GIVE_BACK, [], returns)

    async def renew(self, slots: Sequence[tuple[str, str]], slot_ms: int) -> None:
        await self._spread(RENEW, [slot_ms], slots)

    async def keep_ticket(self, digest: str, value: bytes, seconds: float) -> None:
        await self._buckets.of(digest).call(KEEP_TICKET, digest, value, int(seconds * 1000))

    async def find_ticket(self, digest: str) -> bytes | None:
        found: bytes | int = await self._buckets.of(digest).call(FIND_TICKET, digest)
        return found if isinstance(found, bytes) else None

    async def tidy(self) -> None:
        """Nothing: Redis forgets by itself."""

    async def aclose(self) -> None:
        await self._buckets.aclose()

    async def _spread(self, script: Script, head: list[Argument], items: Sequence[Sequence[Argument]]) -> None:
        """Call the script once a bucket with all that concerns it; an item begins with its account's key."""
        by_link: dict[Link, list[Argument]] = {}
        for item in items:
            link = self._buckets.of(str(item[0]))
            waiting = by_link.setdefault(link, list(head))
            waiting += item
            if len(waiting) > ARGUMENTS_MAX:
                await link.call(script, *by_link.pop(link))
        for link, waiting in by_link.items():
            await link.call(script, *waiting)
