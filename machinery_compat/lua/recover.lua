-- Puts the messages of consumers whose lease has run out back at the head of their queue, in
-- their original order. Those that can have been running are counted: each gets one more blank
-- behind its JSON. One that has been put back too often already stays out of the queue.
--
-- KEYS[1]  queue
-- KEYS[2]  consumers    sorted set: member = consumer, score = end of its lease in Unix ms;
--                       every Python worker of the queue renews its own
-- KEYS[3]  concurrency  hash: consumer -> how many of its messages may be running at once
-- KEYS[4]  in-flight    list of the calling consumer, which deals with what stays out
-- ARGV[1]  prefix of the in-flight lists, which share the queue's hash slot
-- ARGV[2]  how often a message is put back at most
--
-- Returns {number of consumers relieved, number of messages put back, those that stay out}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit = tonumber(ARGV[2])
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)
local count, out = 0, {}
for _, consumer in ipairs(gone) do
    local flight = ARGV[1] .. consumer
    -- A pool takes messages in their order, so only the oldest can have been running.
    local running = tonumber(redis.call('HGET', KEYS[3], consumer) or 1)
    local bodies = redis.call('LRANGE', flight, 0, -1)
    for i = #bodies, 1, -1 do
        local body, times = bodies[i], 0
        if i <= running then
            while times < limit and string.byte(body, -1 - times) == 32 do times = times + 1 end
            if times < limit then body = body .. ' ' end
        end
        if i <= running and times >= limit then
            redis.call('RPUSH', KEYS[4], body)
            out[#out + 1] = body
        else
            redis.call('LPUSH', KEYS[1], body)
            count = count + 1
        end
    end
    redis.call('DEL', flight)
    redis.call('ZREM', KEYS[2], consumer)
    redis.call('HDEL', KEYS[3], consumer)
end
return {#gone, count, out}
