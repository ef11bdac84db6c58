-- Takes delayed tasks that are due, earliest first, for a caller who pushes them to their queues and
-- removes them then. Until that they are due again later: should the caller die, any worker, Go's
-- too, moves them.
--
-- KEYS[1]  delayed   sorted set: member = Signature JSON, score = ETA in Unix ns; Go and Python
--                    publishers write it, Go and Python workers take from it
-- ARGV[1]  now       Unix ns
-- ARGV[2]  limit     how many to take at most
-- ARGV[3]  until     when they are due again, Unix ns
--
-- Returns {the members, score of the earliest one that was not due or ''}.
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
local next = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
for _, body in ipairs(due) do redis.call('ZADD', KEYS[1], ARGV[3], body) end
return {due, next[2] or ''}
