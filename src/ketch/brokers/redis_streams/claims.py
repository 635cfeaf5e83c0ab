"""The scripts that move a group's deliveries from one member to another. The server runs each as one step.

A delivery that was taken and not settled is in the group's list of pending entries, under its member's name. What is
given back goes to the consumer `ketch:waiting`, with an idle time that says when it is due: `_DUE` less the delay. Idle
times grow by themselves, so whatever of that consumer is idle for `_DUE` is to be delivered again. Nothing else has to
be kept, and nothing can get lost between two places.

Members say in `ketch:alive:…` that they live. Whoever hasn't for `claim_after` is dead: what it held is given back, and
its name is removed. Consumers that never said so, plain clients', are judged by how long they hold an entry.
"""

from __future__ import annotations

from typing import Final

#: Milliseconds of idle time at which a waiting entry is due, and the longest delay; both are exact in a double.
DUE: Final = 30 * 86_400_000

_SHARED = """
local stream, group, waiting, DUE = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local function wait(id, delay, count)
  local claim = {'XCLAIM', stream, group, waiting, 0, id, 'IDLE', DUE - delay}
  if count then claim[#claim + 1] = 'RETRYCOUNT'; claim[#claim + 1] = math.max(count, 0) end
  claim[#claim + 1] = 'JUSTID'
  redis.call(unpack(claim))
end
local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

#: KEYS stream, alive; ARGV group, waiting, DUE, me, how many, claim_after in ms or 0 for not to look for the dead.
#: Returns the due entries, now mine: id, fields, how often delivered.
TEND: Final = (
    _SHARED
    + """
local alive, me, room, claim_after = KEYS[2], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local now = milliseconds()
if claim_after > 0 then
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    local of = {}
    for at = 1, #info, 2 do of[info[at]] = info[at + 1] end
    local name = of['name']
    local seen = redis.call('ZSCORE', alive, name)
    local dead = seen and now - seen > claim_after
    if name ~= me and name ~= waiting and (dead or not seen) then
      local pending = of['pending']
      if pending > 0 then
        local idle = dead and 0 or claim_after
        for _, entry in ipairs(redis.call('XPENDING', stream, group, 'IDLE', idle, '-', '+', 1000, name)) do
          wait(entry[1], 0)
        end
        -- What is deleted meanwhile leaves the list too, so it is counted anew.
        pending = #redis.call('XPENDING', stream, group, '-', '+', 1, name)
      end
      if pending == 0 and (dead or of['idle'] > claim_after) then
        redis.call('XGROUP', 'DELCONSUMER', stream, group, name)
        redis.call('ZREM', alive, name)
      end
    end
  end
end
local due = {}
if room > 0 then
  for _, entry in ipairs(redis.call('XPENDING', stream, group, 'IDLE', DUE, '-', '+', room, waiting)) do
    local claimed = redis.call('XCLAIM', stream, group, me, 0, entry[1])
    if claimed[1] then
      due[#due + 1] = {claimed[1][1], claimed[1][2], entry[4] + 1}
    else
      redis.call('XACK', stream, group, entry[1])
    end
  end
end
redis.call('ZADD', alive, now, me)
redis.call('PEXPIRE', alive, 86400000)
return due
"""
)

#: KEYS stream; ARGV group, waiting, DUE, me, then id, delay in ms, 1 if it counts as an attempt.
GIVE_BACK: Final = (
    _SHARED
    + """
for at = 5, #ARGV, 3 do
  local entry = redis.call('XPENDING', stream, group, ARGV[at], ARGV[at], 1, ARGV[4])[1]
  if entry then wait(entry[1], tonumber(ARGV[at + 1]), ARGV[at + 2] == '0' and entry[4] - 1 or nil) end
end
"""
)

#: KEYS stream, alive; ARGV group, waiting, DUE, me, then ids that were taken and not tried.
#: Gives back all that is mine.
LEAVE: Final = (
    _SHARED
    + """
local alive, me, untried = KEYS[2], ARGV[4], {}
for at = 5, #ARGV do untried[ARGV[at]] = true end
local from = '-'
repeat
  local pending = redis.call('XPENDING', stream, group, from, '+', 1000, me)
  for _, entry in ipairs(pending) do
    wait(entry[1], 0, untried[entry[1]] and entry[4] - 1 or nil)
    from = '(' .. entry[1]
  end
until #pending == 0
redis.call('XGROUP', 'DELCONSUMER', stream, group, me)
redis.call('ZREM', alive, me)
"""
)
