"""What Redis runs for the stream log: one Lua script a verb, each atomic within its bucket.

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


def _script(body: str) -> Script:
    text = (_COMMON + body).encode()
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


# 1 made, 0 void, or the record that is there. ARGV: stream, owner, record, ttl, token, share of memory for newcomers.
CREATE = _script("""
local id, owner, record, ttl, token = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local h = prefix .. 'h:' .. id
local known = redis.call('HMGET', h, 'r', 'void', 'o', 'f', 'e', 's')
if known[2] then return 0 end
if known[1] then
  if known[3] == owner and known[4] == '1' and known[5] == '0' and known[6] == '0' then
    even_when_full()
    redis.call('HSET', h, 'ct', token)
  end
  return known[1]
end
-- Streams that run must be able to end, so newcomers are refused first.
local memory = redis.pcall('INFO', 'memory')
if type(memory) == 'string' and string.find(memory, 'maxmemory_policy:noeviction', 1, true) then
  local most = tonumber(string.match(memory, 'maxmemory:(%d+)'))
  local used = tonumber(string.match(memory, 'used_memory:(%d+)'))
  if most > 0 and used > most * tonumber(ARGV[7]) then return redis.error_reply('OOM no room for new streams') end
end
redis.call('HSET', h, 'r', record, 'o', owner, 'f', 1, 't', 0, 'e', 0, 's', 0, 'st', 'running', 'b', 0, 'c', 0,
  'os', now_ms(), 'ra', '', 'm', server .. ':', 'ct', token)
redis.call('PEXPIRE', h, ttl)
own(owner, id)
return 1
""")

# Takes back a create whose outcome nobody knows, also one that is still on its way. ARGV: stream, token, void ttl.
UNDO_CREATE = _script("""
local id, h = ARGV[2], prefix .. 'h:' .. ARGV[2]
local known = redis.call('HMGET', h, 'ct', 'o', 'r')
if known[3] and known[1] ~= ARGV[3] then return 0 end
even_when_full()
if known[3] then
  disown(known[2], id)
  redis.call('DEL', h, prefix .. 's:' .. id)
end
redis.call('HSET', h, 'void', 1)
redis.call('PEXPIRE', h, ARGV[4])
return 1
""")

# Who holds an idempotency key, and for how many seconds by now.
# ARGV: key's hash, stream that wants it, ttl, stream to replace.
RESERVE = _script("""
local key, id, dead = prefix .. 'i:' .. ARGV[2], ARGV[3], ARGV[5]
local now = tonumber(redis.call('TIME')[1])
local holder, since = string.match(redis.call('GET', key) or '', '^(%S+) (%d+)$')
if not holder or holder == dead then
  redis.call('SET', key, id .. ' ' .. now, 'PX', ARGV[4])
  return {id, 0}
end
return {holder, now - tonumber(since)}
""")

# Gives an idempotency key back. ARGV: key's hash, stream that holds it.
UNRESERVE = _script("""
local key = prefix .. 'i:' .. ARGV[2]
if string.match(redis.call('GET', key) or '', '^%S+') == ARGV[3] then redis.call('DEL', key) end
return 1
""")

# A stream's record, else 0; with a ttl, a stream that is not there can not be made any more. ARGV: stream, void ttl.
RECORD = _script("""
local h = prefix .. 'h:' .. ARGV[2]
local record = redis.call('HGET', h, 'r')
if not record and ARGV[3] ~= '0' then
  redis.call('HSET', h, 'void', 1)
  redis.call('PEXPIRE', h, ARGV[3])
end
return record or 0
""")

# For each stream 1 ok, 0 fenced, 2 full, 3 there is something in its place, 4 what lies before it was lost.
# ARGV: ttl, ttl after the end, bytes a stream; then for each: stream, fence, epoch, first, last, state, packed.
APPEND = _script("""
local ttl, ttl_end, bytes_max = ARGV[2], ARGV[3], tonumber(ARGV[4])
-- TTLs are refreshed once in a quarter of their time, whichever way the clock was set meanwhile.
local mark = server .. ':' .. math.floor(now_ms() * 4 / ttl)
local out, ends, full = {}, {}, false

-- Whether nothing that counts lies between a stream's last event and the first of an append.
local function follows(last_epoch, last, epoch, first)
  if epoch == tonumber(last_epoch) then return first == last + 1 end
  return first == 0
end

local function add(at, h, known)
  local epoch, last, packed = ARGV[at + 2], ARGV[at + 4], ARGV[at + 6]
  local s = prefix .. 's:' .. ARGV[at]
  local count, place = last - ARGV[at + 3] + 1, epoch .. '-' .. last
  local fresh, added = known[5] == '0', false
  -- A stream that should be there and is not was evicted: begin it again with a TTL. Its readers see the hole.
  if not fresh then added = redis.pcall('XADD', s, 'NOMKSTREAM', place, count, packed) end
  if not added then added, fresh = redis.pcall('XADD', s, place, count, packed), true end
  if added.err then
    if string.find(added.err, 'OOM', 1, true) then return 2 end
    -- Something else lies under this key, or an entry behind this one: never written by this log.
    if string.find(added.err, 'WRONGTYPE', 1, true) or string.find(added.err, 'ID specified', 1, true) then return 0 end
    error(added.err)
  end
  redis.call('HSET', h, 'e', epoch, 's', last, 'b', known[5] + #packed)
  if fresh or known[6] ~= mark then
    redis.call('PEXPIRE', h, ttl)
    redis.call('PEXPIRE', s, ttl)
    redis.call('HSET', h, 'm', mark)
  end
  return 1
end

for at = 5, #ARGV, 7 do
  local i = #out + 1
  local h = prefix .. 'h:' .. ARGV[at]
  local known = redis.call('HMGET', h, 'f', 'e', 's', 'st', 'b', 'm')
  local epoch, first = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  if known[1] ~= ARGV[at + 1] then
    out[i] = 0
  elseif ARGV[at + 6] == '' then
    out[i] = 1
  elseif epoch < tonumber(known[2]) or (epoch == tonumber(known[2]) and first <= tonumber(known[3])) then
    out[i] = 3
  elseif known[4] ~= 'running' then
    out[i] = 0
  elseif may_have_lost(known[6]) and not follows(known[2], known[3], epoch, first) then
    out[i] = 4
  elseif ARGV[at + 5] ~= 'running' then
    out[i] = 1
    ends[#ends + 1] = {i, at, h, known}
  elseif full or known[5] + #ARGV[at + 6] > bytes_max then
    out[i] = 2
  else
    out[i] = add(at, h, known)
    full = full or (out[i] == 2 and #ARGV[at + 6] > 0)
  end
end

for _, last in ipairs(ends) do
  local i, at, h, known = last[1], last[2], last[3], last[4]
  even_when_full()
  out[i] = add(at, h, known)
  if out[i] == 1 then
    redis.call('HSET', h, 'st', ARGV[at + 5], 'c', 0)
    redis.call('PEXPIRE', h, ttl_end)
    redis.call('PEXPIRE', prefix .. 's:' .. ARGV[at], ttl_end)
    disown(redis.call('HGET', h, 'o'), ARGV[at])
    redis.call('SREM', prefix .. 'cancels', ARGV[at])
  end
end
return out
""")

# 0, or epoch and seq of the last event, then id and bytes of each entry. ARGV: stream, range's start, events, bytes.
READ = _script("""
local id, from, events, bytes = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local last = redis.call('HMGET', prefix .. 'h:' .. id, 'e', 's')
if not last[1] then return 0 end
local out = {tonumber(last[1]), tonumber(last[2])}
while events > 0 and bytes > 0 do
  local asked = math.min(events, 64)
  local page = redis.call('XRANGE', prefix .. 's:' .. id, from, '+', 'COUNT', asked)
  for _, entry in ipairs(page) do
    if events <= 0 or bytes <= 0 then return out end
    out[#out + 1], out[#out + 2] = entry[1], entry[2][2]
    events, bytes = events - tonumber(entry[2][1]), bytes - #entry[2][2]
    from = '(' .. entry[1]
  end
  if #page < asked then break end
end
return out
""")

# 0, or the stream's record and state. ARGV: stream, lease, horizon.
DESCRIBE = _script("""
local h, lease, horizon = prefix .. 'h:' .. ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local v = redis.call('HMGET', h, 'r', 'st', 'o', 'f', 't', 'e', 's', 'c', 'os', 'ra', 'm')
if not v[1] then
  -- Looked at, what is over is freed now; otherwise when Redis's own search comes by.
  redis.call('EXISTS', prefix .. 's:' .. ARGV[2])
  return 0
end
local left, now = lease_left(v[3], lease, horizon), now_ms()
-- Since when nobody owns it: its release, else the lease's end, but never before it got this owner.
local since = v[10] ~= '' and 'ra' or 'os'
local from = tonumber(v[10] ~= '' and v[10] or v[9])
if from > now then
  redis.call('HSET', h, since, now)
  from = now
end
local alive, orphaned = 0, now - from
if v[10] == '' and left then
  if left > 0 then alive = 1 else orphaned = math.min(orphaned, -left) end
end
if alive == 1 then orphaned = 0 end
local readers = redis.call('PTTL', prefix .. 'r:' .. ARGV[2])
if readers > lease then redis.call('PEXPIRE', prefix .. 'r:' .. ARGV[2], lease) end
return {v[1], v[2], v[3], alive, orphaned, tonumber(v[4]), tonumber(v[5]), tonumber(v[6]), tonumber(v[7]),
  tonumber(v[8]), readers > 0 and 1 or 0, may_have_lost(v[11]) and 1 or 0}
""")

# ARGV: worker, lease, horizon.
BEAT = _script("""
even_when_full()
redis.call('SET', prefix .. 'l:' .. ARGV[2], 1, 'PX', ARGV[3] + ARGV[4])
return 1
""")

# ARGV: worker, lease, horizon.
EXPIRE = _script("""
local left = lease_left(ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]))
if left and left > 0 then redis.call('PEXPIRE', prefix .. 'l:' .. ARGV[2], ARGV[4]) end
return 1
""")

# The new fence, else 0. ARGV: stream, worker, fence, lease, horizon, ttl, token, a packed reset.
CLAIM = _script("""
local id, owner, lease, horizon, ttl = ARGV[2], ARGV[3], tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local h, s = prefix .. 'h:' .. id, prefix .. 's:' .. id
local known = redis.call('HMGET', h, 'f', 'st', 'o', 'ra', 'm', 'e')
if known[1] ~= ARGV[4] or known[2] ~= 'running' then return 0 end
if known[4] == '' and (lease_left(known[3], lease, horizon) or 0) > 0 then return 0 end
even_when_full()
local fence = tonumber(known[1]) + 1
redis.call('HSET', h, 'f', fence, 'o', owner, 'ra', '', 'os', now_ms(), 'm', server .. ':', 'ct', ARGV[8])
-- Whoever let go of it lives: only deaths are counted.
if known[4] == '' then redis.call('HINCRBY', h, 't', 1) end
disown(known[3], id)
own(owner, id)
-- Going on behind what is left would give the ids of lost events to others. So a reset opens another epoch, and voids
-- what is left. Its number was never given out; the next one may have been, by an owner whose reset was lost as well.
if may_have_lost(known[5]) then
  local epoch = string.format('%d', math.max(known[6] + 1, math.floor(now_ms() / 100) % 900000000))
  redis.call('UNLINK', s)
  redis.call('XADD', s, epoch .. '-0', 1, ARGV[9])
  redis.call('HSET', h, 'e', epoch, 's', 0, 'b', #ARGV[9])
end
redis.call('PEXPIRE', h, ttl)
redis.call('PEXPIRE', s, ttl)
return fence
""")

# Takes back a claim whose outcome nobody knows, also one that is still on its way.
# ARGV: stream, fence before, token, lease, horizon.
UNDO_CLAIM = _script("""
local id, h = ARGV[2], prefix .. 'h:' .. ARGV[2]
local known = redis.call('HMGET', h, 'f', 'st', 'o', 'ra', 'ct')
if known[2] ~= 'running' then return 0 end
if known[5] == ARGV[4] then
  if known[4] == '' then let_go(h, known[3], id) end
  return 1
end
if known[1] ~= ARGV[3] then return 0 end
if known[4] == '' and (lease_left(known[3], tonumber(ARGV[5]), tonumber(ARGV[6])) or 0) > 0 then return 0 end
let_go(h, known[3], id)
redis.call('HINCRBY', h, 'f', 1)
return 1
""")

# ARGV: stream, fence.
RELEASE = _script("""
local h = prefix .. 'h:' .. ARGV[2]
local known = redis.call('HMGET', h, 'f', 'st', 'o', 'ra')
if known[1] == ARGV[3] and known[2] == 'running' and known[4] == '' then let_go(h, known[3], ARGV[2]) end
return 1
""")

# Running streams without a living owner; forgets members that have expired. ARGV: lease, horizon, most.
ORPHANS = _script("""
local lease, horizon, most, out = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), {}
local function look(set, owner)
  for _, id in ipairs(redis.call('SMEMBERS', set)) do
    if #out >= most then return end
    if redis.call('HGET', prefix .. 'h:' .. id, 'st') == 'running' then
      out[#out + 1] = id
    else
      redis.call('SREM', set, id)
    end
  end
  if owner and redis.call('EXISTS', set) == 0 then redis.call('SREM', prefix .. 'owners', owner) end
end
look(prefix .. 'loose')
for _, owner in ipairs(redis.call('SMEMBERS', prefix .. 'owners')) do
  if (lease_left(owner, lease, horizon) or 0) <= 0 then look(prefix .. 'o:' .. owner, owner) end
end
return out
""")

# ARGV: stream, ttl of the hint to its owner.
REQUEST_CANCEL = _script("""
local h = prefix .. 'h:' .. ARGV[2]
local known = redis.call('HMGET', h, 'st', 'o')
if known[1] == 'running' then
  even_when_full()
  redis.call('HSET', h, 'c', 1)
  redis.call('SADD', prefix .. 'cancels', ARGV[2])
  local c = prefix .. 'c:' .. known[2]
  redis.call('XADD', c, 'MAXLEN', 1, '*', 'c', '')
  redis.call('PEXPIRE', c, ARGV[3])
end
return 1
""")

# ARGV: worker.
CANCEL_REQUESTS = _script("""
local out = {}
for _, id in ipairs(redis.call('SMEMBERS', prefix .. 'cancels')) do
  local known = redis.call('HMGET', prefix .. 'h:' .. id, 'st', 'o')
  if known[1] ~= 'running' then
    redis.call('SREM', prefix .. 'cancels', id)
  elseif known[2] == ARGV[2] then
    out[#out + 1] = id
  end
end
return out
""")

# ARGV: lease, then streams.
TOUCH_READERS = _script("""
even_when_full()
for i = 3, #ARGV do redis.call('SET', prefix .. 'r:' .. ARGV[i], 1, 'PX', ARGV[2]) end
return 1
""")

# Wakes a tail, and says how far streams have come: epoch and seq of each, -1 where there is none.
# ARGV: handle, number of this wake, ttl, then streams.
WAKE = _script("""
local w = prefix .. 'w:' .. ARGV[2]
even_when_full()
redis.call('XADD', w, 'MAXLEN', 1, ARGV[3] .. '-0', 'w', '')
redis.call('PEXPIRE', w, ARGV[4])
local out = {}
for i = 5, #ARGV do
  local last = redis.call('HMGET', prefix .. 'h:' .. ARGV[i], 'e', 's')
  out[#out + 1], out[#out + 2] = tonumber(last[1] or -1), tonumber(last[2] or -1)
end
return out
""")

# For tests of what trimming does to readers. ARGV: stream, first id that is kept.
TRIM = _script("""
return redis.call('XTRIM', prefix .. 's:' .. ARGV[2], 'MINID', ARGV[3])
""")
