-- Tells how it stands with a queue.
--
-- KEYS     its streams; the last one is that of its dead letters
-- ARGV[1]  group
-- ARGV[2]  milliseconds after which a consumer that was not heard of counts no more
--
-- Answers {how many wait, milliseconds since the oldest of them was sent or -1, consumers, dead}.

local function length(stream)
  local found = redis.pcall('XLEN', stream)
  return is_fault(found, '') and 0 or found
end

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local depth, oldest, consumers, count = 0, -1, {}, 0

for place = 1, #KEYS - 1 do
  local stream = KEYS[place]
  local facts = facts_of(stream, ARGV[1]) or { pending = 0, lag = length(stream) }
  local last = facts['last-delivered-id'] or '0-0'
  local waiting = facts.lag or math.max(0, length(stream) - facts.pending)
  depth = depth + waiting
  local found = redis.pcall('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)
  if not is_fault(found, '') and found[1] then
    local sent = tonumber(string.match(found[1][1], '^%d+'))
    oldest = math.max(oldest, now - sent, 0)
  end
  local rows = redis.pcall('XINFO', 'CONSUMERS', stream, ARGV[1])
  for _, row in ipairs(is_fault(rows, '') and {} or rows) do
    local name, idle
    for at = 1, #row, 2 do
      if row[at] == 'name' then
        name = row[at + 1]
      elseif row[at] == 'idle' then
        idle = row[at + 1]
      end
    end
    if idle <= tonumber(ARGV[2]) and not consumers[name] then
      consumers[name], count = true, count + 1
    end
  end
end
return { depth, oldest, count, length(KEYS[#KEYS]) }
