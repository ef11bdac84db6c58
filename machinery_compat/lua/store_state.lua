-- Writes a TaskState and carries CreatedAt and TaskName over from the one that it replaces, as
-- Go does with a GET before each SET, but in one step.
--
-- KEYS[1]  task      string: TaskState JSON; whoever sends or runs the task writes it
-- ARGV[1]  head      the new state up to the text of TaskName
-- ARGV[2]  middle    from there up to the text of CreatedAt
-- ARGV[3]  tail      the rest
-- ARGV[4]  expiry in seconds, 0 for none
-- ARGV[5]  'PENDING' to write only over a PENDING state, else ''
-- ARGV[6]  which run of the task writes this: what a later one has written stays; '' for any
--
-- Returns 1, or 0 when it was not written.
local RECEIVED = '","State":"RECEIVED"' -- comes late where the task has ended
local name, created = '', '0001-01-01T00:00:00Z'
local old = redis.call('GET', KEYS[1])
if ARGV[5] ~= '' and not old then return 0 end
if old then
    -- The escaped text is spliced, never decoded: a name stays byte for byte what it was.
    name = string.match(old, '"TaskName"%s*:%s*"(.-)"%s*,%s*"State"%s*:') or name
    created = string.match(old, '^.*"CreatedAt"%s*:%s*"([^"]*)"') or created
    local state = string.match(old, '"State"%s*:%s*"(%u+)"')
    if ARGV[5] ~= '' and state ~= ARGV[5] then return 0 end
    if (state == 'SUCCESS' or state == 'FAILURE') and string.find(ARGV[2], RECEIVED, 1, true) == 1 then return 0 end
    if ARGV[6] ~= '' then
        -- The first thing in the member of ours; a quote inside any text is escaped.
        local run = string.match(old, '"Celery":"{\\"run\\": (%d+)')
        if run and tonumber(run) > tonumber(ARGV[6]) then return 0 end
    end
end
local state = ARGV[1] .. name .. ARGV[2] .. created .. ARGV[3]
if ARGV[4] == '0' then
    redis.call('SET', KEYS[1], state)
else
    redis.call('SET', KEYS[1], state, 'EX', ARGV[4])
end
return 1
