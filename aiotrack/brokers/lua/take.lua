-- Takes messages for a consumer: some by their age, whatever their level, then the most urgent.
--
-- KEYS       streams, the most urgent first
-- ARGV[1,2]  group, consumer
-- ARGV[3]    how many at the most
-- ARGV[4]    how many of them by their age
--
-- Answers {fault or '', {place of the stream, id, data, ...}}. A group that is missing is made.

local group, consumer, aged = ARGV[1], ARGV[2], tonumber(ARGV[4])
local left = tonumber(ARGV[3])
local taken, fault = {}, ''

local function ask(stream, count)
  return redis.pcall(
    'XREADGROUP', 'GROUP', group, consumer, 'COUNT', count, 'STREAMS', stream, '>'
  )
end

-- Gives the id of the last message that was read, nil if there was none.
local function read(place, count)
  local stream = KEYS[place]
  local found = ask(stream, count)
  if is_fault(found, 'NOGROUP') then
    make_group(stream, group)
    found = ask(stream, count)
  end
  if is_fault(found, '') then
    if fault == '' then
      fault = stream .. ': ' .. found.err
    end
    return nil
  elseif not found or not found[1] then
    return nil
  end
  local entries = found[1][2]
  for _, entry in ipairs(entries) do
    append(taken, place, entry[1], entry[2])
  end
  left = left - #entries
  return entries[#entries][1]
end

local function parts(id)
  local time, count = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(time), tonumber(count)
end

local function is_older(one, other)
  local time, count = parts(one)
  local other_time, other_count = parts(other)
  return time < other_time or (time == other_time and count < other_count)
end

local function next_after(stream, id)
  local found = redis.pcall('XRANGE', stream, '(' .. id, '+', 'COUNT', 1)
  return found[1] and found[1][1]
end

local heads = {}
if aged > 0 then
  for place, stream in ipairs(KEYS) do
    local facts = facts_of(stream, group)
    heads[place] = facts and next_after(stream, facts['last-delivered-id']) or false
  end
end
for _ = 1, aged do
  local oldest
  for place = 1, #KEYS do
    if heads[place] and (not oldest or is_older(heads[place], heads[oldest])) then
      oldest = place
    end
  end
  if not oldest then
    break
  end
  local id = read(oldest, 1)
  heads[oldest] = id and next_after(KEYS[oldest], id) or false
end

for place = 1, #KEYS do
  if left <= 0 then
    break
  end
  read(place, left)
end
return { fault, taken }
