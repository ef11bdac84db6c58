-- Tells whether all members of a group have ended, in a time that does not grow with the group:
-- what has been seen to have ended is never looked at again.
--
-- KEYS[1]  group     string: GroupMeta JSON; the sender of the group writes it
-- KEYS[2]  frontier  list: the members not yet seen to have ended, in the group's order, then an
--                    empty one; made from the group by this script, read and shortened by it only
-- ARGV[1]  expiry of the frontier in seconds, 0 for none
--
-- Returns 1 or 0; an error when the group or a member's state is missing.
local head = redis.call('LINDEX', KEYS[2], 0)
if not head then
    local group = redis.call('GET', KEYS[1])
    if not group then return redis.error_reply('MISSING ' .. KEYS[1]) end
    local members = cjson.decode(group)['TaskUUIDs']
    if type(members) ~= 'table' then members = {} end
    members[#members + 1] = ''
    for first = 1, #members, 1000 do
        redis.call('RPUSH', KEYS[2], unpack(members, first, math.min(first + 999, #members)))
    end
    if ARGV[1] ~= '0' then redis.call('EXPIRE', KEYS[2], ARGV[1]) end
    head = members[1]
end
while head ~= '' do
    local state = redis.call('GET', head)
    if not state then return redis.error_reply('MISSING ' .. head) end
    -- A quote inside the texts before it is escaped, so the first match is the member. (A peer that is
    -- neither Go nor Python may write blanks.)
    local name = string.match(state, '"State"%s*:%s*"(%u*)"')
    if name ~= 'SUCCESS' and name ~= 'FAILURE' then return 0 end
    redis.call('LPOP', KEYS[2])
    head = redis.call('LINDEX', KEYS[2], 0)
end
return 1
