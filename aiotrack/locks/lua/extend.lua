-- Makes the lease longer; never shorter, and never of somebody else's lock. Others see that its
-- holder lives by the time when it did so last.
--
-- ARGV[1] owner  ARGV[2] ttl, milliseconds
--
-- Answers 1, or 0 when the lock is not this owner's any more. What extends comes first: a server
-- without memory refuses what is only told.

if redis.call('HGET', lock, 'owner') ~= ARGV[1] then
  return 0
end
local ttl, now = tonumber(ARGV[2]), microseconds()
if redis.call('PTTL', lock) < ttl then
  redis.call('PEXPIRE', lock, ttl)
  pcall(redis.call, 'ZADD', index, digits(now + ttl * 1000), lock)
end
pcall(redis.call, 'HSET', lock, 'renewed', digits(now))
return 1
