-- Makes the lease longer; never shorter, and never of somebody else's lock. Others see that its
-- holder lives by the time when it did so last.
--
-- ARGV[1] owner  ARGV[2] ttl, milliseconds
--
-- Answers 1, or 0 when the lock is not this owner's any more.

if redis.call('HGET', lock, 'owner') ~= ARGV[1] then
  return 0
end
local ttl = tonumber(ARGV[2])
redis.call('HSET', lock, 'renewed', digits(microseconds()))
if redis.call('PTTL', lock) < ttl then
  redis.call('PEXPIRE', lock, ttl)
  redis.call('ZADD', index, digits(microseconds() + ttl * 1000), lock)
end
return 1
