-- Takes a claimed message out of a consumer's in-flight list and puts it somewhere else, at once.
--
-- KEYS[1]  in-flight  list of what the consumer has claimed
-- KEYS[2]  target     the queue, or the list of dead messages
-- ARGV[1]  body       the message as it was claimed
-- ARGV[2]  'head' or 'tail' of the target
-- ARGV[3]  what to put there: '' for the body itself
--
-- Returns 1, or 0 when the message was no longer this consumer's.
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
local what = ARGV[3]
if what == '' then what = ARGV[1] end
redis.call(ARGV[2] == 'head' and 'LPUSH' or 'RPUSH', KEYS[2], what)
return 1
