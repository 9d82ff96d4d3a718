"""Leases, claims, and what workers tell each other on Redis: the scripts of `leases`."""

from app.streams.redis.script import script

# ARGV: worker, lease, horizon.
BEAT = script("""
even_when_full()
redis.call('SET', prefix .. 'l:' .. ARGV[2], 1, 'PX', ARGV[3] + ARGV[4])
return 1
""")

# ARGV: worker, lease, horizon.
EXPIRE = script("""
local left = lease_left(ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]))
if left and left > 0 then redis.call('PEXPIRE', prefix .. 'l:' .. ARGV[2], ARGV[4]) end
return 1
""")

# The new fence, else 0. ARGV: stream, worker, fence, lease, horizon, ttl, token, a packed reset.
CLAIM = script("""
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
UNDO_CLAIM = script("""
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
RELEASE = script("""
local h = prefix .. 'h:' .. ARGV[2]
local known = redis.call('HMGET', h, 'f', 'st', 'o', 'ra')
if known[1] == ARGV[3] and known[2] == 'running' and known[4] == '' then let_go(h, known[3], ARGV[2]) end
return 1
""")

# Running streams without a living owner; forgets members that have expired. ARGV: lease, horizon, most.
ORPHANS = script("""
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
REQUEST_CANCEL = script("""
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
CANCEL_REQUESTS = script("""
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
TOUCH_READERS = script("""
even_when_full()
for i = 3, #ARGV do redis.call('SET', prefix .. 'r:' .. ARGV[i], 1, 'PX', ARGV[2]) end
return 1
""")
