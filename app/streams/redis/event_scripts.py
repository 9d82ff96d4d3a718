"""A stream's events and its state on Redis, written and read: the scripts of `log` and `tail`."""

from app.streams.redis.script import script

# For each stream 1 ok, 0 fenced, 2 full, 3 there is something in its place, 4 what lies before it was lost.
# ARGV: ttl, ttl after the end, bytes a stream; then for each: stream, fence, epoch, first, last, state, packed.
APPEND = script("""
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

# Its owner knows that this server has all that it took of a stream. What is missing before the next append was never
# written, and is no loss of the server's. ARGV: stream, fence, epoch and seq of the last event.
CONFIRM = script("""
local h = prefix .. 'h:' .. ARGV[2]
local known = redis.call('HMGET', h, 'f', 'e', 's')
if known[1] ~= ARGV[3] or known[2] ~= ARGV[4] or known[3] ~= ARGV[5] then return 0 end
even_when_full()
redis.call('HSET', h, 'm', server .. ':')
return 1
""")

# 0, or epoch and seq of the last event, then id and bytes of each entry. ARGV: stream, range's start, events, bytes.
READ = script("""
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
DESCRIBE = script("""
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

# Wakes a tail, and says how far streams have come: epoch and seq of each, -1 where there is none.
# ARGV: handle, number of this wake, ttl, then streams.
WAKE = script("""
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
TRIM = script("""
return redis.call('XTRIM', prefix .. 's:' .. ARGV[2], 'MINID', ARGV[3])
""")
