-- Renews the leases of messages that are still this consumer's; counts no delivery.
--
-- KEYS       streams
-- ARGV[1,2]  group, consumer
-- ARGV       pairs: place of the stream, id
--
-- Answers the numbers of the pairs that are not its own any more, from 0.

local group, consumer = ARGV[1], ARGV[2]
local lost = {}
for at = 3, #ARGV, 2 do
  local stream, id = KEYS[tonumber(ARGV[at])], ARGV[at + 1]
  local found = redis.pcall('XPENDING', stream, group, id, id, 1, consumer)
  if is_fault(found, '') or #found == 0 then
    lost[#lost + 1] = (at - 3) / 2
  else
    redis.call('XCLAIM', stream, group, consumer, 0, id, 'JUSTID')
  end
end
return lost
