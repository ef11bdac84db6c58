-- Renews a consumer's lease on a queue.
--
-- KEYS[1]  consumers    sorted set: member = consumer, score = end of its lease in Unix ms
-- KEYS[2]  concurrency  hash: consumer -> how many of its messages may be running at once; a
--                       consumer's entries in both come and go together
-- ARGV[1]  consumer
-- ARGV[2]  lease in ms
-- ARGV[3]  concurrency, '' to leave it as it is
-- ARGV[4]  'new' for a consumer that begins
--
-- Returns 1, or 0 when another worker has taken the lease away and put the messages back.
if ARGV[4] ~= 'new' and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[2], ARGV[1], ARGV[3]) end
return 1
