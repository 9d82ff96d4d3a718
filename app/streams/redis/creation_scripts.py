"""How a stream begins on Redis, and who holds an idempotency key: the scripts of `creation`."""

from app.streams.redis.script import script

# 1 made, 0 void, or the record that is there. ARGV: stream, owner, record, ttl, token, share of memory for newcomers.
CREATE = script("""
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
refuse_when_full(ARGV[7])
redis.call('HSET', h, 'r', record, 'o', owner, 'f', 1, 't', 0, 'e', 0, 's', 0, 'st', 'running', 'b', 0, 'c', 0,
  'os', now_ms(), 'ra', '', 'm', server .. ':', 'ct', token)
redis.call('PEXPIRE', h, ttl)
own(owner, id)
return 1
""")

# Takes back a create whose outcome nobody knows, also one that is still on its way. ARGV: stream, token, void ttl.
UNDO_CREATE = script("""
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
RESERVE = script("""
local key, id, dead = prefix .. 'i:' .. ARGV[2], ARGV[3], ARGV[5]
local now = tonumber(redis.call('TIME')[1])
local holder, since = string.match(redis.call('GET', key) or '', '^(%S+) (%d+)$')
if not holder or holder == dead then
  redis.call('SET', key, id .. ' ' .. now, 'PX', ARGV[4])
  return {id, 0}
end
return {holder, now - tonumber(since)}
""")

# Who holds an idempotency key, else an empty text. ARGV: key's hash.
HOLDER = script("""
return string.match(redis.call('GET', prefix .. 'i:' .. ARGV[2]) or '', '^%S+') or ''
""")

# Gives an idempotency key back. ARGV: key's hash, stream that holds it.
UNRESERVE = script("""
local key = prefix .. 'i:' .. ARGV[2]
if string.match(redis.call('GET', key) or '', '^%S+') == ARGV[3] then redis.call('DEL', key) end
return 1
""")

# A stream's record, else 0; with a ttl, a stream that is not there can not be made any more. ARGV: stream, void ttl.
RECORD = script("""
local h = prefix .. 'h:' .. ARGV[2]
local record = redis.call('HGET', h, 'r')
if not record and ARGV[3] ~= '0' then
  redis.call('HSET', h, 'void', 1)
  redis.call('PEXPIRE', h, ARGV[3])
end
return record or 0
""")
