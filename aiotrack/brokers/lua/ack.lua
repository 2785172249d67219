-- Acknowledges messages, and deletes them: both, or neither. Harmless when repeated.
--
-- KEYS     streams
-- ARGV[1]  group
-- ARGV     for each stream: how many, and their ids

local at = 2
for _, stream in ipairs(KEYS) do
  local ids = {}
  for _ = 1, tonumber(ARGV[at]) do
    at = at + 1
    ids[#ids + 1] = ARGV[at]
  end
  at = at + 1
  redis.call('XACK', stream, ARGV[1], unpack(ids))
  redis.call('XDEL', stream, unpack(ids))
end
return 1
