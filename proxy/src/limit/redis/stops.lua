-- Sessions that were stopped of late, for the edges where they play.
-- KEYS[1]  a set of them, by when they were stopped (milliseconds since the epoch)
-- ARGV     from when on to tell, how long they are kept (milliseconds), how many at most, one to add or nothing
-- Gives    now, and what was added since, each with when
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if ARGV[4] ~= '' then
  redis.call('ZADD', KEYS[1], now, ARGV[4])
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return {now, redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])}
