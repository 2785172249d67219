-- Takes a lock from whoever holds it with this fence; the next holder has another.
--
-- ARGV[1] fence
--
-- Answers 1, or 0 when it is not held with this fence any more.

if redis.call('HGET', lock, 'fence') ~= ARGV[1] then
  return 0
end
local owner, channel = holder_told()
free()
tell_revoked(owner, channel)
pcall(hand_over)
return 1
