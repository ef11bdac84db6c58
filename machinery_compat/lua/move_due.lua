-- Moves delayed tasks that are due to their queues, earliest first, in one atomic step.
--
-- KEYS[1]  delayed   sorted set: member = Signature JSON, score = ETA in Unix ns; Go and Python
--                    publishers write it, Go and Python workers take from it
-- ARGV[1]  now       Unix ns
-- ARGV[2]  limit     how many to move at most
-- ARGV[3]  queue     the queue of a task without a RoutingKey
--
-- Returns {number that were due, score of the earliest one that was not due or '',
-- the due members that are not a Signature at first sight and stay}.
local function push(queue, body, priority)
--% insert
end

local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
local odd = {}
for _, body in ipairs(due) do
    local ok, signature = pcall(cjson.decode, body)
    -- Go would hand a body without a Name around for ever, and stumble over what is no object. Who leaves
    -- out the RoutingKey may have spelled it in another case.
    if ok and type(signature) == 'table' and type(signature['Name']) == 'string' and signature['Name'] ~= ''
        and signature['RoutingKey'] ~= nil then
        local queue = signature['RoutingKey']
        if type(queue) ~= 'string' or queue == '' then queue = ARGV[3] end
        redis.call('ZREM', KEYS[1], body)
        push(queue, body, tonumber(signature['Priority']) or 0)
    else
        odd[#odd + 1] = body
    end
end
local next = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
return {#due, next[2] or '', odd}
