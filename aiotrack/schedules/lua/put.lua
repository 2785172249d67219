-- Changes one schedule, if it is still as it was read.
--
-- ARGV[1] definition
-- ARGV[2] revision  as it was read
-- ARGV[3] entry     '' removes it
-- ARGV[4] due       '' none
-- ARGV[5] was due   as it was read; '' none: who claims a due time moves it, and changes no revision
--
-- Answers 1; 0 when somebody else was quicker; -1 when all was lost.

if redis.call('EXISTS', made) == 0 then
  return -1
end
if not is_at(ARGV[1], ARGV[2]) then
  return 0
end
if ARGV[5] ~= '' and tonumber(redis.call('ZSCORE', dues, ARGV[1]) or '-1') ~= tonumber(ARGV[5]) then
  return 0
end
put(ARGV[1], ARGV[3], ARGV[4])
return 1
