"""What Redis runs for the stream log: one Lua script a verb, each atomic within its bucket, and the keys they know.

All keys of a bucket share its prefix and therefore its hash tag, `sluice:{b<n>}:`, so scripts make key names from it:

    h:<stream>    hash: r record, o owner, f fence, t takeovers, e and s epoch and seq of the last event, st state,
                  b bytes of events, c cancel requested, os owned since and ra released at (ms of the server's clock),
                  m `<server process that took the last write>:<period in which the TTL was refreshed>`, ct token of the
                  last create or claim. One with only `void` is a stream that must not be made any more.
    s:<stream>    Redis stream: one entry an append, id `<epoch>-<seq of its last event>`, field = number of events.
                  Redis refuses the id 0-0 alone, and no event has it: seq 0 is the reset that opens an epoch > 0.
                  Epochs count on, or are the tenths of seconds of the server's clock where one is opened for loss.
    r:<stream>    exists while a reader elsewhere was seen lately
    l:<worker>    lease, see `lease_left`
    o:<worker>    set: its running streams; `owners`: who has any; `loose`: released ones; `cancels`: to be cancelled
    i:<hash>      idempotency key: `<stream> <second of its reservation>`
    d:<key>       document: v version, b body
    w:<handle>    Redis stream that wakes one tail
    c:<worker>    Redis stream that tells a worker's tail to look for cancellations

Every script gets the bucket's prefix as its one key and the id of the server's process as ARGV[1]. Times are Redis's:
TTLs, and TIME only where a clock that was set back is noticed and set right.
"""

import hashlib

import msgspec

_COMMON = """
local prefix, server = KEYS[1], ARGV[1]

-- Redis at maxmemory refuses a script's first write if it takes memory, and no later one. Deleting what is not there is
-- a write that takes none. For what must work on a full server, or nothing could end and no lease be kept.
local function even_when_full()
  redis.call('DEL', prefix .. 'none')
end

-- Streams that run must be able to end, so newcomers are refused first. `share` of the memory is theirs.
local function refuse_when_full(share)
  local memory = redis.pcall('INFO', 'memory')
  if type(memory) == 'string' and string.find(memory, 'maxmemory_policy:noeviction', 1, true) then
    local most = tonumber(string.match(memory, 'maxmemory:(%d+)'))
    local used = tonumber(string.match(memory, 'used_memory:(%d+)'))
    if most > 0 and used > most * tonumber(share) then error({err = 'OOM no room for anything new'}) end
  end
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Milliseconds that a worker's lease still runs; below 0 for how long it is over; nil if it had none for very long.
-- The key outlives the lease by the horizon, so that the time since is known by Redis's own count. A clock that was set
-- back shows as more time left than was ever given: then the lease runs from now.
local function lease_left(owner, lease, horizon)
  local key = prefix .. 'l:' .. owner
  local left = redis.call('PTTL', key)
  if left < 0 then return nil end
  left = left - horizon
  if left > lease then
    redis.call('PEXPIRE', key, lease + horizon)
    return lease
  end
  return left
end

-- Whether another process took the last write, as `m` says: a failover or a restart lies in between, which may have
-- lost events whose ids are out.
local function may_have_lost(m)
  return string.match(m, '^%x*') ~= server
end

local function disown(owner, id)
  redis.call('SREM', prefix .. 'loose', id)
  if redis.call('SREM', prefix .. 'o:' .. owner, id) == 1 and redis.call('EXISTS', prefix .. 'o:' .. owner) == 0 then
    redis.call('SREM', prefix .. 'owners', owner)
  end
end

local function own(owner, id)
  redis.call('SADD', prefix .. 'o:' .. owner, id)
  redis.call('SADD', prefix .. 'owners', owner)
end

local function let_go(h, owner, id)
  even_when_full()
  redis.call('HSET', h, 'ra', now_ms())
  disown(owner, id)
  redis.call('SADD', prefix .. 'loose', id)
end
"""


class Script(msgspec.Struct, frozen=True):
    """A script's text, and the hash by which Redis knows it once it has run."""

    text: bytes
    sha: bytes


def script(body: str) -> Script:
    """A script of the log's, with what all of them share before it."""
    text = (_COMMON + body).encode()
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())
