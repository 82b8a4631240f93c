#!lua
-- Take the lease of a study, unless another coordinator holds it. KEYS: lease, meta. ARGV: owner, milliseconds.
-- Raising seq fences whoever owned the study before; `starts` counts owners since the last progress.

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return false
end
local found = redis.call('TYPE', KEYS[2]).ok
if found ~= 'none' and found ~= 'hash' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[2])
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('HINCRBY', KEYS[2], 'seq', 1)
redis.call('HINCRBY', KEYS[2], 'starts', 1)
redis.call('HSET', KEYS[2], 'owner', ARGV[1])
return redis.call('HGETALL', KEYS[2])
