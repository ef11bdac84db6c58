-- Claims up to ARGV[1] more messages of a queue for one consumer, in order.
--
-- KEYS[1]  queue      list of Signature JSON; Go and Python publishers push at its tail
-- KEYS[2]  in-flight  list of what this consumer has claimed and not acknowledged, newest last
local claimed = {}
for _ = 1, tonumber(ARGV[1]) do
    local body = redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT')
    if not body then break end
    claimed[#claimed + 1] = body
end
return claimed
