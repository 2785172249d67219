-- Stands before every script of the schedules. All keys of a namespace share one hash tag.
--
-- KEYS[1] entries  hash    definition -> JSON; only Python reads and writes what is in it
-- KEYS[2] changes  zset    definition, by the version of its last change; also of those that are gone
-- KEYS[3] due      zset    definition, by its next due time; only of those that are active
-- KEYS[4] sending  zset    <definition>:<due> that somebody sends, by the end of his time for it
-- KEYS[5] version  string  of the last change
-- KEYS[6] made     string  which making of all these this is; without it they were lost
--
-- All times are milliseconds, by this server's clock.

local entries, changes, dues, sending, version, made =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

local function digits(number)
  return string.format('%.0f', number)
end

local function milliseconds()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function line(id)
  return {
    id,
    redis.call('ZSCORE', changes, id) or '0',
    redis.call('HGET', entries, id) or '',
    redis.call('ZSCORE', dues, id) or '',
  }
end

local function is_at(id, revision)
  return tonumber(redis.call('ZSCORE', changes, id) or '0') == tonumber(revision)
end

-- Stores what is not '', removes what is.
local function put(id, entry, due)
  if entry == '' then
    redis.call('HDEL', entries, id)
  else
    redis.call('HSET', entries, id, entry)
  end
  if due == '' then
    redis.call('ZREM', dues, id)
  else
    redis.call('ZADD', dues, due, id)
  end
  local now = redis.call('INCR', version)
  redis.call('ZADD', changes, now, id)
  return now
end
