-- Takes over what somebody did not send in time.
--
-- ARGV[1] what      <definition>:<due>
-- ARGV[2] end       of his time, as it was read
-- ARGV[3] lease     milliseconds
--
-- Answers the end of the new lease; 0 when it was sent, or somebody else was quicker.

local now = milliseconds()
local ended = tonumber(redis.call('ZSCORE', sending, ARGV[1]) or '-1')
if ended ~= tonumber(ARGV[2]) or ended > now then
  return 0
end
redis.call('ZADD', sending, digits(now + tonumber(ARGV[3])), ARGV[1])
return digits(now + tonumber(ARGV[3]))
