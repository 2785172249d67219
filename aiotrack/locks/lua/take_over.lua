-- Takes the lock from the holder with this fence, who loses it: a retry from the run before it.
--
-- ARGV[1] fence  ARGV[2] owner  ARGV[3] ttl, milliseconds  ARGV[4] info, JSON
--
-- Answers the new fence, also when repeated; or false when it is not held with that fence any more,
-- or this owner has given up.

local owner, channel = holder_told()
if owner == ARGV[2] then
  return redis.call('HGET', lock, 'fence')
end
if redis.call('HGET', lock, 'fence') ~= ARGV[1] or has_gone(ARGV[2]) then
  return false
end
redis.call('DEL', lock)
tell_revoked(owner, channel)
return grant(ARGV[2], tonumber(ARGV[3]), ARGV[4])
