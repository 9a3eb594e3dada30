-- Notes that an edge lives, and counts those that do.
-- KEYS[1]  the set of edges, by when they were last heard of (milliseconds)
-- ARGV     the edge, how long it counts (milliseconds)
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
