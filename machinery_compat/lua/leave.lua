-- Puts what a consumer still holds back at the head of its queue, in the original order. A
-- consumer that then holds nothing is forgotten.
--
-- KEYS[1]  queue
-- KEYS[2]  consumers    sorted set: member = consumer, score = end of its lease in Unix ms
-- KEYS[3]  concurrency  hash: consumer -> how many of its messages may be running at once
-- KEYS[4]  in-flight    list of what the consumer has claimed, newest last
-- ARGV[1]  consumer
-- ARGV[2…] messages that it keeps, since they are running
local kept = {}
for i = 2, #ARGV do kept[ARGV[i]] = (kept[ARGV[i]] or 0) + 1 end
local bodies = redis.call('LRANGE', KEYS[4], 0, -1)
for i = #bodies, 1, -1 do
    local body = bodies[i]
    if (kept[body] or 0) > 0 then
        kept[body] = kept[body] - 1
    else
        redis.call('LREM', KEYS[4], -1, body)
        redis.call('LPUSH', KEYS[1], body)
    end
end
if redis.call('EXISTS', KEYS[4]) == 0 then
    redis.call('ZREM', KEYS[2], ARGV[1])
    redis.call('HDEL', KEYS[3], ARGV[1])
end
