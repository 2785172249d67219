-- Takes over messages whose lease ended; sets aside those that were delivered too often.
--
-- KEYS       streams, the most urgent first; then the stream of dead letters of each
-- ARGV[1,2]  group, consumer
-- ARGV[3]    how many at the most
-- ARGV[4]    milliseconds of a lease
-- ARGV[5]    deliveries after which a message is set aside
-- ARGV       pairs: place of the stream, id of a message that it has: its thread is late
--
-- Answers {fault or '', {place, id, data, ...}, {place, id, deliveries, ...} of those set aside}.

local group, consumer = ARGV[1], ARGV[2]
local left, lease, most = tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local count = #KEYS / 2
local taken, dead, fault, kept = {}, {}, '', kept_from(6)

local function forget(stream, id)
  redis.call('XACK', stream, group, id)
  redis.call('XDEL', stream, id)
end

local function set_aside(place, id, holder, deliveries)
  local stream = KEYS[place]
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if entry then
    local found = {}
    append(found, place, id, entry[2])
    local kept = redis.pcall(
      'XADD', KEYS[count + place], '*', 'data', found[3], 'stream', stream, 'id', id,
      'deliveries', deliveries, 'consumer', holder,
      'reason', 'delivered ' .. deliveries .. ' times, and never acknowledged'
    )
    if is_fault(kept, '') then -- no memory: it stays where it is
      fault = kept.err
      return
    end
    dead[#dead + 1], dead[#dead + 2], dead[#dead + 3] = place, id, deliveries
  end
  forget(stream, id)
end

local function take_over(place, id)
  local stream = KEYS[place]
  local entry = redis.call('XCLAIM', stream, group, consumer, lease, id)[1]
  if entry and entry[2] then
    append(taken, place, id, entry[2])
    left = left - 1
  else
    forget(stream, id) -- it was deleted meanwhile
  end
end

for place = 1, count do
  if left <= 0 then
    break
  end
  local rows = redis.pcall('XPENDING', KEYS[place], group, 'IDLE', lease, '-', '+', 100)
  if rows.err then
    rows = {} -- no such group: taking makes it
  end
  for _, row in ipairs(rows) do
    if left <= 0 then
      break
    end
    if kept[place .. ' ' .. row[1]] then
      -- it runs here
    elseif row[4] >= most then
      set_aside(place, row[1], row[2], row[4])
    else
      take_over(place, row[1])
    end
  end
end
return { fault, taken, dead }
