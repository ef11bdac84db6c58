-- Remembers a chord until its callback has been sent, and forgets those that can no longer be sent.
--
-- KEYS[1]  times      sorted set: member = group UUID, score = Unix seconds of the next look
-- KEYS[2]  callbacks  hash: group UUID = Signature JSON; the same with ':began' and ':suspected' are marks
-- ARGV[1]  group
-- ARGV[2]  callback
-- ARGV[3]  when to look
-- ARGV[4]  '1' when the caller sends the callback now, else ''
-- ARGV[5]  chords that nobody has looked at since then are forgotten: their documents have expired
redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2])
if ARGV[4] == '1' then
    redis.call('HSET', KEYS[2], ARGV[1] .. ':began', '1')
    redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
else
    redis.call('ZADD', KEYS[1], 'NX', ARGV[3], ARGV[1])
end
for _, uuid in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[5], 'LIMIT', 0, 10)) do
    redis.call('ZREM', KEYS[1], uuid)
    redis.call('HDEL', KEYS[2], uuid, uuid .. ':began', uuid .. ':suspected')
end
