#!lua
-- Keep the lease of a study (ARGV: owner, milliseconds), or give it up (milliseconds 0). KEYS: lease.
-- An expired lease that nobody took may be taken again: the fence tells whether somebody had it in between.

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
