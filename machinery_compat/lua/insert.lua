-- The body of a function (queue, body, priority): pushes a message behind those at the head of the
-- queue that have at least the same priority, so that every worker, Go's too, takes it before the
-- ordinary ones.
if priority <= 0 then return redis.call('RPUSH', queue, body) end
local position = 0
while true do
    local chunk = redis.call('LRANGE', queue, position, position + 99)
    for _, other in ipairs(chunk) do
        -- The field of the Signature itself comes before those of its callbacks, and a quote
        -- inside a text is escaped, so the first match is the right one.
        if tonumber(string.match(other, '"Priority":(%d+)') or '0') < priority then
            return redis.call('LINSERT', queue, 'BEFORE', other, body)
        end
    end
    if #chunk < 100 then return redis.call('RPUSH', queue, body) end
    position = position + 100
end
