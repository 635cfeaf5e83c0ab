"""Events for later: a sorted set per topic, from which whoever subscribes moves what is due into the stream.

Both ways are one step on the server, so an event is in the set or in the stream, and never in both or neither.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from . import names

if TYPE_CHECKING:
    from ...resp.connection import Connection

#: The longest delay, in seconds.
MAX_DELAY: Final = 30 * 86_400.0

#: Most headers of such an event: a script's stack takes them all at once.
MAX_HEADERS: Final = 1000

#: KEYS scheduled; ARGV delay in ms, a unique name, then the entry's fields.
SCHEDULE: Final = """
local time = redis.call('TIME')
local due = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[1])
local entry = {}
for at = 2, #ARGV do entry[at - 1] = ARGV[at] end
redis.call('ZADD', KEYS[1], due, cmsgpack.pack(entry))
"""

#: KEYS stream, scheduled. Returns in how many ms the next is due, -1 for none.
RELEASE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, packed in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 64)) do
  local entry = cmsgpack.unpack(packed)
  table.remove(entry, 1)
  redis.call('XADD', KEYS[1], '*', unpack(entry))
  redis.call('ZREM', KEYS[2], packed)
end
local next = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return next[2] and math.max(0, next[2] - now) or -1
"""


async def release(connection: Connection, topic: str) -> float:
    """Move what is due into the stream; return in how many seconds the next one is, infinite for none."""
    milliseconds: int = await connection.request("EVAL", RELEASE, 2, topic, names.scheduled(topic))
    return milliseconds / 1000 if milliseconds >= 0 else math.inf
