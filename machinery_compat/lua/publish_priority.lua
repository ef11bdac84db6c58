-- Pushes a message with a priority behind the messages at the head of the queue that have at
-- least the same one, so that every worker, Go's too, takes it before the ordinary ones.
--
-- KEYS[1]  queue     list of Signature JSON
-- ARGV[1]  body
-- ARGV[2]  priority  1 to 255
local wanted = tonumber(ARGV[2])
local position = 0
while true do
    local chunk = redis.call('LRANGE', KEYS[1], position, position + 99)
    for _, body in ipairs(chunk) do
        -- The field of the Signature itself comes before those of its callbacks, and a quote
        -- inside a text is escaped, so the first match is the right one.
        local priority = tonumber(string.match(body, '"Priority":(%d+)') or '0')
        if priority < wanted then
            return redis.call('LINSERT', KEYS[1], 'BEFORE', body, ARGV[1])
        end
    end
    if #chunk < 100 then return redis.call('RPUSH', KEYS[1], ARGV[1]) end
    position = position + 100
end
