-- What the scripts of the stream broker share.

-- Adds {place of the stream, id, data} to a list. A message that is not ours has no data: it is
-- given as an empty one, which TaskIQ refuses, and acknowledges.
local function append(list, place, id, fields)
  local data = ''
  for at = 1, #fields, 2 do
    if fields[at] == 'data' then
      data = fields[at + 1]
    end
  end
  list[#list + 1], list[#list + 2], list[#list + 3] = place, id, data
end

local function is_fault(found, word)
  return type(found) == 'table' and found.err and string.find(found.err, word, 1, true) ~= nil
end

-- The messages that a consumer keeps: pairs of a stream's place and an id, as '<place> <id>'.
local function kept_from(first)
  local kept = {}
  for at = first, #ARGV, 2 do
    kept[ARGV[at] .. ' ' .. ARGV[at + 1]] = true
  end
  return kept
end

local function make_group(stream, group)
  return redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
end

-- The group's row of XINFO, by name; nil when there is none.
local function facts_of(stream, group)
  local rows = redis.pcall('XINFO', 'GROUPS', stream)
  if rows.err then
    return nil
  end
  for _, row in ipairs(rows) do
    local facts = {}
    for at = 1, #row, 2 do
      facts[row[at]] = row[at + 1]
    end
    if facts.name == group then
      return facts
    end
  end
  return nil
end
