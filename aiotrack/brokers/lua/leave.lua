-- Hands back what a consumer took and will not run, at the end of its stream; takes the consumer
-- away when nothing is left and it asks for that.
--
-- KEYS       streams
-- ARGV[1,2]  group, consumer
-- ARGV[3]    '1': it goes
-- ARGV       pairs: place of the stream, id of a message that it keeps
--
-- Answers how many were handed back.

local group, consumer, goes = ARGV[1], ARGV[2], ARGV[3] == '1'
local kept, handed = kept_from(4), 0

local function hand_back(stream, id)
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if entry and is_fault(redis.pcall('XADD', stream, '*', unpack(entry[2])), '') then
    return -- no memory: its lease ends by itself
  end
  redis.call('XACK', stream, group, id)
  redis.call('XDEL', stream, id)
  handed = handed + 1
end

for place, stream in ipairs(KEYS) do
  local first = '-'
  while first do
    local rows = redis.pcall('XPENDING', stream, group, first, '+', 1000, consumer)
    if is_fault(rows, '') then
      rows = {}
    end
    for _, row in ipairs(rows) do
      if not kept[place .. ' ' .. row[1]] then
        hand_back(stream, row[1])
      end
    end
    first = #rows == 1000 and '(' .. rows[1000][1]
  end
  if goes then
    local rows = redis.pcall('XPENDING', stream, group, '-', '+', 1, consumer)
    if not is_fault(rows, '') and #rows == 0 then
      redis.pcall('XGROUP', 'DELCONSUMER', stream, group, consumer)
    end
  end
end
return handed
