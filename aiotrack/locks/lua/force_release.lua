-- Takes a lock from whoever holds it with this fence; the next holder has another.
--
-- ARGV[1] fence  ARGV[2] id, which only its repeats share  ARGV[3] milliseconds to remember it
--
-- Answers 1, also when repeated, or 0 when it is not held with this fence any more.

local forced = lock .. '|forced:' .. ARGV[2]
if redis.call('HGET', lock, 'fence') ~= ARGV[1] then
  return redis.call('EXISTS', forced)
end
local owner, channel = holder_told()
free()
tell_revoked(owner, channel)
pcall(hand_over)
pcall(redis.call, 'SET', forced, '1', 'PX', ARGV[3])
return 1
