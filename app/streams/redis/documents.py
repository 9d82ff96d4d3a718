"""Documents on Redis: a hash each, which Redis forgets by itself."""

from collections.abc import Sequence

from app.streams.documents import Document
from app.streams.redis.buckets import Buckets, gather
from app.streams.redis.script import script
from app.streams.room import CREATE_SHARE_MAX

# Version and body; nothing if there is none. ARGV: key.
GET = script("""
local known = redis.call('HMGET', prefix .. 'd:' .. ARGV[2], 'v', 'b')
if not known[1] then return {} end
return {known[1], known[2]}
""")

# The new version, 0 if another one is there. ARGV: key, body, version, ttl, share of memory for newcomers.
PUT = script("""
local key, version = prefix .. 'd:' .. ARGV[2], tonumber(ARGV[4])
if tonumber(redis.call('HGET', key, 'v') or 0) ~= version then return 0 end
refuse_when_full(ARGV[6])
local time = redis.call('TIME')
local made = math.max(version + 1, time[1] * 1000000 + time[2])
redis.call('HSET', key, 'v', string.format('%.0f', made), 'b', ARGV[3])
redis.call('PEXPIRE', key, ARGV[5])
return made
""")

# ARGV: key.
DROP = script("return redis.call('DEL', prefix .. 'd:' .. ARGV[2])")

# The version of each, 0 where there is none. ARGV: keys.
VERSIONS = script("""
local found = {}
for at = 2, #ARGV do found[at - 1] = tonumber(redis.call('HGET', prefix .. 'd:' .. ARGV[at], 'v') or 0) end
return found
""")


class RedisDocuments:
    """`Documents`, on `Buckets`."""

    _buckets: Buckets

    async def get_document(self, key: str) -> Document | None:
        found = await self._buckets.of(key).call(GET, key)
        return Document(int(found[0]), bytes(found[1])) if found else None

    async def put_document(self, key: str, body: bytes, version: int, ttl_seconds: float) -> int | None:
        arguments = (key, body, version, int(ttl_seconds * 1000), str(CREATE_SHARE_MAX))
        return int(await self._buckets.of(key).call(PUT, *arguments)) or None

    async def drop_document(self, key: str) -> None:
        await self._buckets.of(key).call(DROP, key)

    async def document_versions(self, keys: Sequence[str]) -> list[int]:
        places: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(self._buckets.number(key), []).append(place)
        calls = [
            self._buckets.links[number].call(VERSIONS, *(keys[place] for place in some))
            for number, some in places.items()
        ]
        versions = [0] * len(keys)
        for some, found in zip(places.values(), await gather(*calls), strict=True):
            for place, version in zip(some, found, strict=True):
                versions[place] = int(version)
        return versions
