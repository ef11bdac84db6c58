-- Renews a consumer's lease on a queue.
--
-- KEYS[1]  consumers   sorted set: member = consumer, score = end of its lease in Unix ms
-- ARGV[1]  consumer
-- ARGV[2]  lease in ms
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
