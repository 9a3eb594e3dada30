-- Draws tokens from one bucket (GCRA). One key a call, so that it runs on a cluster too.
-- KEYS[1]  the bucket: its TAT, microseconds since the epoch below
-- ARGV     what a token costs (microseconds), what the bucket holds (tokens), tokens wanted, whether tokens that are
--          not there yet may be promised
-- Gives    tokens for now, tokens for later, after how long those (microseconds), after how long to ask again
local clock = redis.call('TIME')
-- Nearer than 1970, so that a double counts in 64ths of a microsecond.
local now = (clock[1] - 1700000000) * 1000000 + clock[2]
-- How far tokens are promised: a few leases of as many edges.
local AHEAD = 1000000
local interval, want = tonumber(ARGV[1]), tonumber(ARGV[3])
local room = interval * tonumber(ARGV[2])
local tat = tonumber(redis.call('GET', KEYS[1]) or now)
if tat < now then tat = now end
-- No bucket is emptier than this: the clock was set back.
if tat > now + room + AHEAD then tat = now + room + AHEAD end

local function price(tokens)
  return math.ceil(tokens * interval * 64) / 64
end

local at_once = math.floor((now + room - tat) / interval)
if at_once < 0 then at_once = 0 end
if at_once > want then at_once = want end
tat = tat + price(at_once)
local later, later_in, retry_in = want - at_once, 0, 0
if later > 0 then
  later_in = math.ceil(tat + price(later) - room - now)
  if ARGV[4] == '1' and later_in <= AHEAD then
    tat = tat + price(later)
  else
    if at_once == 0 then
      if ARGV[4] == '1' then
        retry_in = later_in - AHEAD
      else
        retry_in = math.ceil(tat + price(1) - room - now)
      end
    end
    later, later_in = 0, 0
  end
end
if tat > now then
  redis.call('SET', KEYS[1], string.format('%.6f', tat), 'PX', math.ceil((tat - now) / 1000) + 1)
end
return {at_once, later, later_in, retry_in}
