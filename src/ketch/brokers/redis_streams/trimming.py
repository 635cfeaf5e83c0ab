"""What nobody needs any more is removed, so that a stream doesn't fill the server's memory.

An event is needed while a group has still to take or to settle it, however long that takes, and for `keep` seconds
after it was published, for those who subscribe to the past and for subscriptions without a group that are behind.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any, Final

from hiredis import ReplyError

from ...errors import BrokerUnavailable

if TYPE_CHECKING:
    from ...resp.link import Link

log = logging.getLogger("ketch.broker")

#: Seconds between two rounds, and events published by one broker after which there is one all the same.
_ROUND = 15.0
_EVENTS = 16_384

#: Topics that one broker looks after.
_TOPICS = 4096

#: Entries that one `XTRIM ~` removes at most are 10,000; after fewer than this there is no more to remove.
_FEW = 1000
_TIMES = 100

#: KEYS stream; ARGV keep in ms. Whole nodes only (`~`), which costs next to nothing. Returns how many are gone.
_TRIM: Final = """
local stream = KEYS[1]
if redis.call('EXISTS', stream) == 0 then return 0 end
local time = redis.call('TIME')
local ms, seq = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[1]), 0
local least = string.format('%.0f-0', math.max(ms, 0))
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local of = {}
  for at = 1, #info, 2 do of[info[at]] = info[at + 1] end
  local needed = of['last-delivered-id']
  if of['pending'] > 0 then needed = redis.call('XPENDING', stream, of['name'])[2] or needed end
  local m, s = string.match(needed, '^(%d+)-(%d+)$')
  m, s = tonumber(m), tonumber(s)
  if m < ms or (m == ms and s < seq) then ms, seq, least = m, s, needed end
end
return redis.call('XTRIM', stream, 'MINID', '~', least)
"""


class Trimming:
    """Trims the streams that one broker has to do with, from time to time."""

    def __init__(self, link: Link, keep: float) -> None:
        self._link = link
        self._keep = round(keep * 1000)
        self._topics: set[str] = set()
        self._published = 0
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    def add(self, topic: str) -> None:
        """Look after a topic."""
        if len(self._topics) < _TOPICS:
            self._topics.add(topic)

    def published(self, topic: str) -> None:
        """Note that there is one event more."""
        if topic not in self._topics:
            self.add(topic)
        self._published += 1
        if self._published >= _EVENTS:
            self._due.set()

    async def _run(self) -> None:
        while True:
            try:
                # Not all brokers at the same time.
                async with asyncio.timeout(_ROUND * random.uniform(0.75, 1.25)):  # noqa: S311 - not a secret
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            self._published = 0
            for topic in list(self._topics):
                await self._trim(topic)

    async def _trim(self, topic: str) -> None:
        try:
            for _ in range(_TIMES):
                gone: Any = await self._link.call("EVAL", _TRIM, 1, topic, self._keep)
                if gone < _FEW:
                    break
        except BrokerUnavailable as error:
            log.debug("redis-streams: %s isn't trimmed for now: %s", topic, error)
        except ReplyError as error:
            self._topics.discard(topic)
            log.warning("redis-streams: %s isn't trimmed and keeps growing: %s", topic, error)

    async def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
