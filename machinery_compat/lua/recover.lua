-- Puts the messages of consumers whose lease has run out back at the head of their queue, in
-- their original order. ARGV[2], when given, is a consumer that gives everything back itself.
--
-- KEYS[1]  queue
-- KEYS[2]  consumers   sorted set: member = consumer, score = end of its lease in Unix ms;
--                      every Python worker of the queue renews its own
-- ARGV[1]  prefix of the in-flight lists, which share the queue's hash slot
-- ARGV[2]  consumer or ''
--
-- Returns the consumers that were relieved and the number of messages put back.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local gone = {}
if ARGV[2] ~= '' then
    gone[1] = ARGV[2]
else
    gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)
end
local count = 0
for _, consumer in ipairs(gone) do
    local flight = ARGV[1] .. consumer
    while redis.call('LMOVE', flight, KEYS[1], 'RIGHT', 'LEFT') do count = count + 1 end
    redis.call('ZREM', KEYS[2], consumer)
end
return {#gone, count}
