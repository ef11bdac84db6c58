-- Moves delayed tasks that are due to their queues, earliest first, in one atomic step.
--
-- KEYS[1]  delayed   sorted set: member = Signature JSON, score = ETA in Unix ns; Go and Python
--                    publishers write it, Go and Python workers take from it
-- ARGV[1]  now       Unix ns
-- ARGV[2]  limit     how many to move at most
-- ARGV[3]  queue     the queue of a task without a RoutingKey
-- ARGV[4]  dead      list for members that are no Signature (pushed into by this script only)
--
-- Returns {number moved, score of the next one that is not due yet or ''}.
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, body in ipairs(due) do
    local ok, signature = pcall(cjson.decode, body)
    redis.call('ZREM', KEYS[1], body)
    if ok and type(signature) == 'table' then
        local queue = signature['RoutingKey']
        if type(queue) ~= 'string' or queue == '' then queue = ARGV[3] end
        redis.call('RPUSH', queue, body)
    else
        redis.call('RPUSH', ARGV[4], cjson.encode({
            reason = 'a delayed task that is no Signature', queue = ARGV[3], body = body}))
    end
end
local next = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {#due, next[2] or ''}
