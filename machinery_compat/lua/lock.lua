-- Takes the lock of a periodic task, or one whose time is over, in one step; Go takes several.
--
-- KEYS[1]  lock   string: Unix ns until which it is held, in decimal; Go and Python processes set it
--                 with NX, and it goes by its own expiry
-- ARGV[1]  until  Unix ns
-- ARGV[2]  now    Unix ns by the caller's clock, as Go compares
-- ARGV[3]  life   ms, at least 1
-- ARGV[4]  early  ms that a lock should expire before its time
--
-- Returns 1, or 0 when another process holds it.
local taken = redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[3])
if taken then return 1 end

-- A Lua number cannot hold nanoseconds, so the texts are compared. Go never takes 0 for over.
local held, now = redis.call('GET', KEYS[1]), ARGV[2]
if not string.match(held, '^-?[1-9]%d*$') then return 0 end
local over = string.sub(held, 1, 1) == '-' or #held < #now or (#held == #now and held < now)
if over then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
    return 1
end

-- What Go has set expires about when all look for the lock again, or not at all. A Go process that
-- looks at it just then takes it for free, finds it gone, and leaves it taken by nobody: that tick is lost.
local life = math.floor((tonumber(held) - tonumber(now)) / 1e6) - tonumber(ARGV[4])
local left = redis.call('PTTL', KEYS[1])
if life >= 1 and (left < 0 or left > life) then redis.call('PEXPIRE', KEYS[1], life) end
return 0
