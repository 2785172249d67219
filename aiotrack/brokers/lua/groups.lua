-- Makes the group of every stream, and a consumer in it; what is there already stays.
--
-- KEYS     streams
-- ARGV[1]  group
-- ARGV[2]  consumer; '' makes none
--
-- Answers the first fault, or ''.

local fault = ''
for _, stream in ipairs(KEYS) do
  local made = make_group(stream, ARGV[1])
  if is_fault(made, 'BUSYGROUP') then
    made = nil
  end
  if ARGV[2] ~= '' and not is_fault(made, '') then
    made = redis.pcall('XGROUP', 'CREATECONSUMER', stream, ARGV[1], ARGV[2])
  end
  if is_fault(made, '') and fault == '' then
    fault = stream .. ': ' .. made.err
  end
end
return fault
