-- Gives out the chords that are due to be looked at, each to one caller at a time.
--
-- KEYS[1]  times   sorted set: member = group UUID, score = Unix seconds of the next look
-- ARGV[1]  now
-- ARGV[2]  when these are given out again
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, 100)
for _, uuid in ipairs(due) do redis.call('ZADD', KEYS[1], ARGV[2], uuid) end
return due
