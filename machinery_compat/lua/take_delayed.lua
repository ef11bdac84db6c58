-- Takes one member out of the delayed tasks and puts it, or something in its place, into a list.
--
-- KEYS[1]  delayed  sorted set: member = Signature JSON, score = ETA in Unix ns
-- KEYS[2]  target   list: a queue, or the list of dead messages
-- ARGV[1]  member
-- ARGV[2]  what to push
--
-- Returns 1, or 0 when another worker has taken it.
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[2])
return 1
