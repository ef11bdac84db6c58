-- Pushes a message with a priority.
--
-- KEYS[1]  queue     list of Signature JSON
-- ARGV[1]  body
-- ARGV[2]  priority  1 to 255
local queue, body, priority = KEYS[1], ARGV[1], tonumber(ARGV[2])
--% insert
