-- Takes a due time: who gets it sends it, or drops it.
--
-- ARGV[1] definition
-- ARGV[2] revision   as it was read
-- ARGV[3] due
-- ARGV[4] following  the due time after it; '' none
-- ARGV[5] lease      milliseconds to send it in; '' drops it
-- ARGV[6] entry      what to store instead; '' leaves it as it is
--
-- Answers {1, end of the lease}; {2, milliseconds until it is due}; {0, line} when it is somebody
-- else's, or not what it was; {-1} when all was lost.

local id, due = ARGV[1], tonumber(ARGV[3])
if redis.call('EXISTS', made) == 0 then
  return { -1 }
end
local is_next = tonumber(redis.call('ZSCORE', dues, id) or '-1') == due
if not is_at(id, ARGV[2]) or not is_next then
  return { 0, line(id) }
end
local now = milliseconds()
if now < due then
  return { 2, digits(due - now) }
end
local lease = ''
if ARGV[5] ~= '' then
  lease = digits(now + tonumber(ARGV[5]))
  redis.call('ZADD', sending, lease, id .. ':' .. ARGV[3])
end
if ARGV[6] ~= '' then
  put(id, ARGV[6], ARGV[4])
elseif ARGV[4] == '' then
  redis.call('ZREM', dues, id)
else
  redis.call('ZADD', dues, ARGV[4], id)
end
return { 1, lease }
