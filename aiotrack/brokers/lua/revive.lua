-- Sends dead letters again: each goes back to the stream that it was in, as new.
--
-- KEYS  the dead letters of a queue, then its streams
-- ARGV  ids of letters
--
-- Answers how many; ids that are not there any more count nothing.

local known, done = {}, 0
for at = 2, #KEYS do
  known[KEYS[at]] = true
end
for _, id in ipairs(ARGV) do
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  if entry then
    local stream, found = KEYS[#KEYS], {}
    for at = 1, #entry[2], 2 do
      if entry[2][at] == 'stream' and known[entry[2][at + 1]] then
        stream = entry[2][at + 1]
      end
    end
    append(found, 1, id, entry[2])
    redis.call('XADD', stream, '*', 'data', found[3])
    redis.call('XDEL', KEYS[1], id)
    done = done + 1
  end
end
return done
