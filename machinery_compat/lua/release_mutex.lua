-- Releases a lock if it is still the caller's.
--
-- KEYS[1]  lock   string: the holder's random value; Go and Python workers set it with NX
-- ARGV[1]  value  the caller's
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
