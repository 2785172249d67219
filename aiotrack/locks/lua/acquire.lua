-- Takes the lock, or says that it is held, and waits for it in order of arrival.
--
-- ARGV[1] owner    a token that only this holder knows
-- ARGV[2] ttl      milliseconds
-- ARGV[3] info     JSON: who it is, for people
-- ARGV[4] channel  of the process that waits; '' does not wait
-- ARGV[5] place    from the answer before, to keep it; '' takes the last one
--
-- Answers {1, fence}; {0, milliseconds of the lease left, place, info of the holder, its fence};
-- {-1} when this owner has given up. Harmless when repeated: its own lock is extended.

local owner, ttl, info, channel, place = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]

if has_gone(owner) then
  return { -1 }
end

local function extended()
  redis.call('PEXPIRE', lock, ttl)
  redis.call('ZADD', index, digits(microseconds() + ttl * 1000), lock)
  return { 1, redis.call('HGET', lock, 'fence') }
end

local function wait()
  if not redis.call('ZSCORE', queue, owner) then
    if place == '' then
      local last = redis.call('ZRANGE', queue, -1, -1, 'WITHSCORES')[2]
      place = digits(math.max(microseconds(), (tonumber(last) or 0) + 1))
    end
    redis.call('ZADD', queue, place, owner)
    redis.call('HSET', waiters, owner, channel .. ' ' .. digits(ttl) .. ' ' .. info)
  end
  redis.call('PEXPIRE', queue, WAITERS_LIVE)
  redis.call('PEXPIRE', waiters, WAITERS_LIVE)
end

local holder = redis.call('HGET', lock, 'owner')
if holder == owner then
  return extended()
end
if channel ~= '' and (holder or redis.call('EXISTS', queue) == 1) then
  wait()
end
if not holder then
  holder = hand_over()
  if not holder then
    return { 1, grant(owner, ttl, info) }
  elseif holder == owner then
    return extended()
  end
end
local told = redis.call('HMGET', lock, 'info', 'fence')
return { 0, redis.call('PTTL', lock), place, told[1], told[2] }
