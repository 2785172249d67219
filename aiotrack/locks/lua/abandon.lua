-- Gives up: frees the lock if it is this owner's, leaves the queue if it waits, and remembers it, so
-- that a request of before which comes later takes nothing.
--
-- ARGV[1] owner  ARGV[2] milliseconds to remember it  ARGV[3] mark, as in release.lua
--
-- Answers 1 when the lock was this owner's, else 0.

redis.call('ZREM', queue, ARGV[1])
redis.call('HDEL', waiters, ARGV[1])
local was_owner, holder = 0, redis.call('HGET', lock, 'owner')
if holder == ARGV[1] then
  was_owner = 1
  free()
  tell_ended(ARGV[3])
  pcall(hand_over)
else
  forget_ended(holder)
end
pcall(redis.call, 'SET', lock .. '|gone:' .. ARGV[1], '1', 'PX', ARGV[2])
return was_owner
