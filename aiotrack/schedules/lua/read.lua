-- Gives what changed; to who knows nothing, or of another making, or of a version that was rolled
-- back (a restart from an older copy), which definitions there are.
--
-- ARGV[1] the making that the reader knows; '' none; '*' wants nothing but ARGV[3...]
-- ARGV[2] the version that he has seen; '' none
-- ARGV[3...] definitions that he wants in any case
--
-- Answers {now} when all was lost, else {now, making, version, all, lines, late}: all are names, or 0;
-- a line is {definition, revision, entry, due}, '' for what there is not; late is what was not sent
-- in time, each followed by the end of that time.

local now = milliseconds()
local making = redis.call('GET', made)
if not making then
  return { digits(now) }
end
local newest = tonumber(redis.call('GET', version) or '0')
local wanted, all = {}, 0
if ARGV[1] ~= '*' and (ARGV[1] ~= making or newest < tonumber(ARGV[2] ~= '' and ARGV[2] or 'inf')) then
  all = redis.call('HKEYS', entries)
else
  if ARGV[1] ~= '*' and newest > tonumber(ARGV[2]) then
    wanted = redis.call('ZRANGEBYSCORE', changes, '(' .. ARGV[2], '+inf')
  end
  for number = 3, #ARGV do
    wanted[#wanted + 1] = ARGV[number]
  end
end
local lines = {}
for number, id in ipairs(wanted) do
  lines[number] = line(id)
end
local late = redis.call('ZRANGEBYSCORE', sending, '-inf', digits(now), 'WITHSCORES', 'LIMIT', 0, 500)
return { digits(now), making, digits(newest), all, lines, late }
