-- Seats one session among those that a listener plays, and notes what media it was given. One key a call.
-- KEYS[1]  the listener: a hash of sessions, each when it began, when its media ends (or it was stopped), and p (plays) or
--          s (was stopped); milliseconds since the epoch
-- ARGV     1 the session  2 how many may play at once  3 grace  4 1: the oldest gives way, 0: the newest is refused
--          5 how old its ticket is, -1: unknown
--          6 1: it plays on that edge already; then 7 how long since, 8 how much media it has there
--          9 media that was not told of yet  10 how long ago the first of that was given
--          11 how far ahead media counts  12 how long a stopped session is remembered; all milliseconds
-- Gives    0 plays, 1 no place, 2 stopped; then how much media it has, or how long that stays so; how long ago it began;
--          the session that gave way, or nothing
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local sid, most, grace = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local age, held = tonumber(ARGV[5]), ARGV[6] == '1'
local ahead_max, stopped_for = tonumber(ARGV[11]), tonumber(ARGV[12])

local function over(session)
  return session.till + (session.stopped and stopped_for or grace)
end

local sessions = {}
local flat = redis.call('HGETALL', KEYS[1])
for n = 1, #flat, 2 do
  local began, till, state = string.match(flat[n + 1], '^(%d+) (%d+) (%a)$')
  local session = {sid = flat[n], began = tonumber(began), till = tonumber(till), stopped = state == 's'}
  if over(session) > now then sessions[flat[n]] = session end
end

local function keep()
  local fields, last = {}, now
  for name, session in pairs(sessions) do
    fields[#fields + 1] = name
    fields[#fields + 1] = string.format('%.0f %.0f %s', session.began, session.till, session.stopped and 's' or 'p')
    if over(session) > last then last = over(session) end
  end
  redis.call('DEL', KEYS[1])
  if #fields > 0 then
    redis.call('HSET', KEYS[1], unpack(fields))
    redis.call('PEXPIRE', KEYS[1], last - now + 1)
  end
end

-- As many stopped ones as may play; the one that was stopped first is forgotten.
local function stop(session)
  session.stopped, session.till = true, now
  local count, first = 0, nil
  for _, other in pairs(sessions) do
    if other.stopped then
      count = count + 1
      if not first or other.till < first.till then first = other end
    end
  end
  if count > most then sessions[first.sid] = nil end
end

local mine = sessions[sid]
if mine and mine.stopped then
  if age < 0 or age >= now - mine.till then return {2, over(mine) - now, 0, ''} end
  sessions[sid] = nil
  mine = nil
end
local gone = ''
if mine then
  local till = math.max(mine.till, now - tonumber(ARGV[10])) + tonumber(ARGV[9])
  mine.till = math.min(till, now + ahead_max)
else
  local playing, oldest, free = 0, nil, nil
  for _, other in pairs(sessions) do
    if not other.stopped then
      playing = playing + 1
      if not oldest or other.began < oldest.began then oldest = other end
      if not free or over(other) < free then free = over(other) end
    end
  end
  mine = {sid = sid, began = now, till = now, stopped = false}
  if held then
    mine.began = now - tonumber(ARGV[7])
    mine.till = now + math.min(tonumber(ARGV[8]), ahead_max)
  end
  if playing >= most and ARGV[4] ~= '1' then return {1, free - now, 0, ''} end
  sessions[sid] = mine
  if playing >= most then
    -- Who plays on an edge already may have begun before all others that are known here.
    if mine.began < oldest.began then oldest = mine end
    gone = oldest.sid
    stop(oldest)
  end
end
keep()
if mine.stopped then return {2, over(mine) - now, 0, ''} end
return {0, math.max(mine.till - now, 0), now - mine.began, gone}
