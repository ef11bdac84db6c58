-- Puts what a consumer still holds back at the head of its queue, in the original order, and
-- forgets the consumer.
--
-- KEYS[1]  queue
-- KEYS[2]  consumers    sorted set: member = consumer, score = end of its lease in Unix ms
-- KEYS[3]  concurrency  hash: consumer -> how many of its messages may be running at once
-- KEYS[4]  in-flight    list of what the consumer has claimed, newest last
-- ARGV[1]  consumer
while redis.call('LMOVE', KEYS[4], KEYS[1], 'RIGHT', 'LEFT') do end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
