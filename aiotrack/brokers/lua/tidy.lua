-- Takes away consumers that hold nothing and were not heard of for long: dead ones. One that lives
-- after all is made again by its next read.
--
-- KEYS     streams
-- ARGV[1]  group
-- ARGV[2]  milliseconds
--
-- Answers how many.

local gone = 0
for _, stream in ipairs(KEYS) do
  local rows = redis.pcall('XINFO', 'CONSUMERS', stream, ARGV[1])
  if is_fault(rows, '') then
    rows = {}
  end
  for _, row in ipairs(rows) do
    local facts = {}
    for at = 1, #row, 2 do
      facts[row[at]] = row[at + 1]
    end
    if facts.pending == 0 and facts.idle > tonumber(ARGV[2]) then
      redis.call('XGROUP', 'DELCONSUMER', stream, ARGV[1], facts.name)
      gone = gone + 1
    end
  end
end
return gone
