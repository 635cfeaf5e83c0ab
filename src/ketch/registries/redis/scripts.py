"""What the server does in one step, on one shelf. Time is the server's: no two clocks are compared.

Whatever changes a shelf raises its version by one and is told on its channel:

    <version> + <milliseconds to live> <record>
    <version> - <id>

So who listens knows when it has missed something. The version of a new shelf begins with the microseconds of the day it
was made, and so is above all versions that it had before it was lost.
"""

from __future__ import annotations

from typing import Final

_BEGIN: Final = """
local records, expires, version, channel = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end
local function tell(change)
    if redis.call('EXISTS', version) == 0 then redis.call('SET', version, text(time[1] * 1000000 + time[2])) end
    redis.call('PUBLISH', channel, text(redis.call('INCR', version)) .. change)
end
"""

#: ARGV: channel, milliseconds to live, then ids and records in turn.
WRITE: Final = (
    _BEGIN
    + """
local ttl = tonumber(ARGV[2])
for at = 3, #ARGV, 2 do
    redis.call('ZADD', expires, text(now + ttl), ARGV[at])
    if redis.call('HGET', records, ARGV[at]) ~= ARGV[at + 1] then
        redis.call('HSET', records, ARGV[at], ARGV[at + 1])
        tell(' + ' .. ARGV[2] .. ' ' .. ARGV[at + 1])
    end
end
local last = tonumber(redis.call('ZRANGE', expires, -1, -1, 'WITHSCORES')[2])
for _, key in ipairs(KEYS) do redis.call('PEXPIREAT', key, text(last + 60000 + 2 * ttl)) end
return 0
"""
)

#: ARGV: channel, id, and the record that it must have to be removed, "" for any.
REMOVE: Final = (
    _BEGIN
    + """
if ARGV[3] == '' or redis.call('HGET', records, ARGV[2]) == ARGV[3] then
    redis.call('ZREM', expires, ARGV[2])
    if redis.call('HDEL', records, ARGV[2]) == 1 then tell(' - ' .. ARGV[2]) end
end
return 0
"""
)

#: ARGV: channel. Removes what has run out, a thousand at most; returns the version, "" for an empty shelf, and the
#: milliseconds until something runs out, -1 for never.
SWEEP: Final = (
    _BEGIN
    + """
for _, id in ipairs(redis.call('ZRANGEBYSCORE', expires, '-inf', text(now), 'LIMIT', 0, 1000)) do
    redis.call('ZREM', expires, id)
    if redis.call('HDEL', records, id) == 1 then tell(' - ' .. id) end
end
local first = redis.call('ZRANGE', expires, 0, 0, 'WITHSCORES')[2]
local left = first and math.max(0, tonumber(first) + 1 - now) or -1
return {redis.call('GET', version) or '', left}
"""
)
