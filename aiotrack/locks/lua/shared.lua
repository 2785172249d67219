-- Stands before every script of the lock. All keys of a namespace share one hash tag.
--
-- KEYS[1] lock         hash   owner, fence, info; since, renewed (microseconds); the lease long
-- KEYS[2] index        zset   every lock that is held, by the end of its lease (microseconds)
--
-- and beside the lock, in the same slot for they share its tag. No lock's name holds a |, so that
-- none of them is another lock:
--
-- <lock>|fence         string the last fence that was given; 30 days
-- <lock>|queue         zset   who waits, by arrival
-- <lock>|waiters       hash   who waits -> "<channel> <ttl> <info>"
-- <lock>|gone:<owner>  string this owner has given up: a request that comes later takes nothing
-- <lock>|ended:<mark>  string this delivery ended by itself what it held the lock for
-- <lock>|forced:<id>   string this request took the lock away: its repeat is told so, too

local lock, index = KEYS[1], KEYS[2]
local fences, queue, waiters = lock .. '|fence', lock .. '|queue', lock .. '|waiters'
local FENCES_LIVE = 2592000000 -- milliseconds, 30 days
local WAITERS_LIVE = 10000 -- milliseconds; each of them asks every second
local ENDS_LIVE = 30000 -- milliseconds; a copy that waits for such an end looks twice a second
local GRACE = 3000 -- milliseconds that a lock is handed over for, until its new owner extends it

local function microseconds()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function digits(number)
  return string.format('%.0f', number)
end

-- Fences rise with the server's clock, so that they do not fall when its data are lost.
local function grant(owner, ttl, info)
  local now = microseconds()
  local since = digits(now)
  local fence, last = since, redis.call('SET', fences, since, 'PX', FENCES_LIVE, 'GET')
  if last and tonumber(last) >= now then
    fence = digits(tonumber(last) + 1)
    redis.call('SET', fences, fence, 'PX', FENCES_LIVE)
  end
  redis.call('HSET', lock, 'owner', owner, 'fence', fence, 'info', info, 'since', since)
  redis.call('PEXPIRE', lock, ttl)
  redis.call('ZADD', index, digits(now + ttl * 1000), lock)
  return fence
end

local function has_gone(owner)
  return redis.call('EXISTS', lock .. '|gone:' .. owner) == 1
end

local function free()
  redis.call('DEL', lock)
  redis.call('ZREM', index, lock)
end

-- Lets a copy that waited know that the work was done: a lease that just ended leaves no mark.
local function tell_ended(mark)
  if mark and mark ~= '' then
    pcall(redis.call, 'SET', lock .. '|ended:' .. mark, '1', 'PX', ENDS_LIVE)
  end
end

-- Who holds the lock, and the channel of its process: to be asked before the lock is taken away.
local function holder_told()
  local told = redis.call('HMGET', lock, 'owner', 'info')
  return told[1], string.match(told[2] or '', '"channel":"([^"]+)"')
end

-- Lets who held the lock hear that it was taken away; else it sees that at its next renewal.
local function tell_revoked(owner, channel)
  if owner and channel then
    pcall(redis.call, 'PUBLISH', channel, owner .. ' -1')
  end
end

-- A lease that ended by itself leaves its line in the list of all.
local function forget_ended(holder)
  if not holder then
    redis.call('ZREM', index, lock)
  end
end

-- Gives a free lock to the first who waits and lives: somebody hears on its process' channel.
local function hand_over()
  while true do
    local owner = redis.call('ZPOPMIN', queue)[1]
    if not owner then
      return nil
    end
    local told = redis.call('HGET', waiters, owner)
    redis.call('HDEL', waiters, owner)
    if told then
      local channel, ttl, info = string.match(told, '^(%S+) (%d+) (.*)$')
      local fence = grant(owner, math.min(tonumber(ttl), GRACE), info)
      if redis.call('PUBLISH', channel, owner .. ' ' .. fence) > 0 then
        return owner
      end
      free()
    end
  end
end
