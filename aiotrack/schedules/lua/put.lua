-- Changes one schedule, if it is still as it was read.
--
-- ARGV[1] definition
-- ARGV[2] revision  as it was read
-- ARGV[3] entry     '' removes it
-- ARGV[4] due       '' none
--
-- Answers 1; 0 when somebody else was quicker; -1 when all was lost.

if redis.call('EXISTS', made) == 0 then
  return -1
end
if not is_at(ARGV[1], ARGV[2]) then
  return 0
end
put(ARGV[1], ARGV[3], ARGV[4])
return 1
