-- Makes everything anew after it was lost; harmless when somebody did.
--
-- ARGV[1] the name of this making
-- ARGV[2...] definition, entry, due ('' none), for each
--
-- Answers 1; 0 when somebody was quicker.

if redis.call('EXISTS', made) == 1 then
  return 0
end
redis.call('DEL', entries, changes, dues, sending)
for number = 2, #ARGV, 3 do
  put(ARGV[number], ARGV[number + 1], ARGV[number + 2])
end
redis.call('SET', made, ARGV[1])
return 1
