-- Frees the lock if it is still this owner's, and hands it over to who waits.
--
-- ARGV[1] owner  ARGV[2] mark of its delivery, when that ended by itself; else ''
--
-- Answers 1, or 0 when it was not this owner's any more. What frees comes first: a server without
-- memory refuses what follows, and the lock is free all the same.

local holder = redis.call('HGET', lock, 'owner')
if holder ~= ARGV[1] then
  forget_ended(holder)
  return 0
end
free()
tell_ended(ARGV[2])
pcall(hand_over)
return 1
