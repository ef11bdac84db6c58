-- Puts a dead message back into its queue and writes its task's state, at once.
--
-- KEYS[1]  dead     list of entries: JSON with the reason and the message; workers append
-- KEYS[2]  queue    list of messages, taken from the head
-- ARGV[1]  entry    as it is in the list
-- ARGV[2]  body     the message
-- ARGV[3…] the command that writes the state PENDING, when results are on this server
--
-- Returns 1, or 0 when the entry is no longer there.
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
if ARGV[3] then redis.call(unpack(ARGV, 3)) end
redis.call('RPUSH', KEYS[2], ARGV[2])
return 1
