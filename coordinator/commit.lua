#!lua
-- One atomic, fenced commit of everything that follows from a batch of events.
-- KEYS[1] is the study's meta hash; KEYS[2..] are all other keys that are written.
-- ARGV: owner, expected seq, one letter per key for its type (h hash, s string, x stream), then operations:
--   H key field value      hash field            A key bytes           append to a string
--   V key bytes ttl        the newest verdict    R key bytes ttl       an answer
--   D key reason head      a dead letter
-- The shebang line makes the server refuse the script before its first write when it is out of memory. A script is
-- not undone when it fails half-way, so whatever can fail is checked before anything is written.

local fence = redis.call('HMGET', KEYS[1], 'owner', 'seq')
if fence[1] ~= ARGV[1] or fence[2] ~= ARGV[2] then
  return 'FENCED'
end

local TYPES = {h = 'hash', s = 'string', x = 'stream'}
for i, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= TYPES[string.sub(ARGV[3], i, i)] then
    return 'WRONGTYPE ' .. key
  end
end

local function newest(key, maximum, name, bytes, ttl)
  redis.call('XADD', key, 'MAXLEN', maximum, '*', name, bytes)
  if ttl ~= '0' then
    redis.call('PEXPIRE', key, ttl)
  end
end

-- Answers are trimmed as they are added: those of this commit have not been read yet.
local answers, at = {}, 4
while at <= #ARGV do
  if ARGV[at] == 'R' then
    answers[ARGV[at + 1]] = (answers[ARGV[at + 1]] or 0) + 1
  end
  at = at + (ARGV[at] == 'A' and 3 or 4)
end

at = 4
while at <= #ARGV do
  local operation, key, first, second = ARGV[at], KEYS[tonumber(ARGV[at + 1])], ARGV[at + 2], ARGV[at + 3]
  if operation == 'H' then
    redis.call('HSET', key, first, second)
  elseif operation == 'A' then
    redis.call('APPEND', key, first)
  elseif operation == 'V' then
    newest(key, 1, 'v', first, second)
  elseif operation == 'R' then
    newest(key, math.max(64, answers[ARGV[at + 1]]), 'r', first, second)
  elseif operation == 'D' then
    redis.call('XADD', key, 'MAXLEN', 1000, '*', 'reason', first, 'head', second)
  end
  at = at + (operation == 'A' and 3 or 4)
end

redis.call('HINCRBY', KEYS[1], 'seq', 1)
return 'OK'
