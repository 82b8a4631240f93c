#!lua
-- Take the lease of a study, unless another coordinator holds it. KEYS: lease, meta, inbox.
-- ARGV: owner, milliseconds, the latest schema that this coordinator can read, '1' if the server has no other one.
-- Raising seq fences whoever owned the study before; `starts` counts owners since the last progress.

for i, wanted in ipairs({'string', 'hash', 'stream'}) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= wanted then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i])
  end
end

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and ARGV[4] ~= '1' then
  return false
end
local schema = redis.call('HGET', KEYS[2], 'schema')
if schema and tonumber(schema) > tonumber(ARGV[3]) then
  return redis.error_reply('SCHEMA ' .. schema)
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('HINCRBY', KEYS[2], 'seq', 1)
redis.call('HINCRBY', KEYS[2], 'starts', 1)
redis.call('HSET', KEYS[2], 'owner', ARGV[1])
return redis.call('HGETALL', KEYS[2])
