-- Takes a claimed message out of a consumer's in-flight list and lets it wait among the delayed
-- tasks, from where any worker, Go's too, moves it back to its queue.
--
-- KEYS[1]  in-flight  list of what the consumer has claimed
-- KEYS[2]  delayed    sorted set: member = Signature JSON, score = Unix ns when it is due
-- ARGV[1]  body       the message as it was claimed
-- ARGV[2]  due        Unix ns
-- ARGV[3]  what       the message with its RoutingKey set to the queue it came from
--
-- Returns 1, or 0 when the message was no longer this consumer's.
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3])
return 1
