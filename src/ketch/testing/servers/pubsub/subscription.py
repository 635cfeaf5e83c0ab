"""Subscription: the events of one subscription, waiting or leased, and the streams that they are dealt out to."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from typing import TYPE_CHECKING, Any

from google.pubsub_v1 import types

if TYPE_CHECKING:
    from collections.abc import Callable

_Received: Any = types.ReceivedMessage.pb()

_serial = itertools.count(1)


class Stream:
    """One streaming pull: what is on its way to it, and how much more it takes."""

    def __init__(self, most: int, most_bytes: int, deadline: float) -> None:
        self.most = most if most > 0 else 1 << 30
        self.most_bytes = most_bytes if most_bytes > 0 else 1 << 60
        self.deadline = deadline
        self.count = 0
        self.bytes = 0
        self.outbox: deque[tuple[str, Entry]] = deque()  # with the ack id of then
        self.news = asyncio.Event()
        self.open = True

    @property
    def room(self) -> bool:
        """Whether it takes one more."""
        return self.open and self.count < self.most and self.bytes < self.most_bytes


class Entry:
    """One event of one subscription."""

    __slots__ = ("ack_id", "attempt", "ends", "message", "order", "size", "stream")

    def __init__(self, message: Any, order: int) -> None:
        self.message = message
        self.order = order
        self.size = message.ByteSize()
        self.attempt = 0
        self.ack_id = ""  # "" while it waits
        self.ends = 0.0
        self.stream: Stream | None = None


class Subscription:
    """Events in order of their publication; those of one key go to one stream, one after the other."""

    def __init__(self, described: Any, bury: Callable[[Any, Any], None]) -> None:
        self.described = described
        self.streams: deque[Stream] = deque()
        self._bury = bury
        self._entries: dict[str, Entry] = {}  # all that are not acknowledged, by message id
        self._leased: dict[str, Entry] = {}  # by ack id
        self._waiting: list[tuple[int, Entry]] = []
        self._held_back: dict[str, list[tuple[int, Entry]]] = {}  # by key, while another stream has the key
        self._keys: dict[str, tuple[Stream, int]] = {}  # who has a key, and how many of its events
        self._ends: list[tuple[float, int, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._orders = itertools.count()

    def put(self, message: Any) -> None:
        """Take an event in."""
        entry = Entry(message, next(self._orders))
        self._entries[message.message_id] = entry
        heapq.heappush(self._waiting, (entry.order, entry))

    def forget(self, ids: list[str]) -> None:
        """Drop events by their message ids: what the journal says of acknowledgements."""
        for id_ in ids:
            self._entries.pop(id_, None)
        self._waiting = [item for item in self._waiting if item[1].message.message_id in self._entries]
        heapq.heapify(self._waiting)

    def deal(self) -> None:
        """Lease out what waits, as far as there are streams with room, in turns."""
        while self._waiting and any(stream.room for stream in self.streams):
            order, entry = heapq.heappop(self._waiting)
            key = entry.message.ordering_key if self.described.enable_message_ordering else ""
            if key and key in self._keys and not self._keys[key][0].room:
                self._held_back.setdefault(key, []).append((order, entry))
                continue
            stream = self._keys[key][0] if key and key in self._keys else self._turn()
            self._lease(entry, stream, key)

    def _turn(self) -> Stream:
        while True:
            self.streams.rotate(-1)
            if self.streams[0].room:
                return self.streams[0]

    def _lease(self, entry: Entry, stream: Stream, key: str) -> None:
        if key:
            self._keys[key] = (stream, self._keys.get(key, (stream, 0))[1] + 1)
        entry.stream = stream
        stream.count += 1
        stream.bytes += entry.size
        self.name(entry, stream.deadline)
        stream.outbox.append((entry.ack_id, entry))
        stream.news.set()

    def name(self, entry: Entry, seconds: float) -> None:
        """Give an event an ack id and a deadline."""
        entry.attempt += 1
        entry.ack_id = f"ack-{next(_serial)}-{entry.message.message_id}"
        self._leased[entry.ack_id] = entry
        self._until(entry, seconds)

    def pull(self, most: int) -> list[Entry]:
        """Lease out what waits to somebody without a stream."""
        taken: list[Entry] = []
        while self._waiting and len(taken) < most:
            entry = heapq.heappop(self._waiting)[1]
            self.name(entry, self.described.ack_deadline_seconds)
            taken.append(entry)
        return taken

    def received(self, entry: Entry) -> Any:
        """Return an event as a client gets it."""
        attempt = entry.attempt if self.described.HasField("dead_letter_policy") else 0
        return _Received(ack_id=entry.ack_id, message=entry.message, delivery_attempt=attempt)

    def _until(self, entry: Entry, seconds: float) -> None:
        entry.ends = asyncio.get_running_loop().time() + seconds
        heapq.heappush(self._ends, (entry.ends, next(_serial), entry.ack_id))
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._ends:
            self._timer = asyncio.get_running_loop().call_at(self._ends[0][0], self._expire)

    def _expire(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._ends and self._ends[0][0] <= now:
            ack_id = heapq.heappop(self._ends)[2]
            entry = self._leased.get(ack_id)
            if entry is not None and entry.ends <= now:
                self._give_back(entry)
        self._set_timer()
        self.deal()

    def acknowledge(self, ack_ids: list[str]) -> list[str]:
        """Be done with leased events; an id whose lease has ended says nothing. Return the message ids."""
        done = []
        for ack_id in ack_ids:
            entry = self._leased.get(ack_id)
            if entry is not None:
                self._end_lease(entry)
                self._entries.pop(entry.message.message_id, None)
                done.append(entry.message.message_id)
        self.deal()
        return done

    def extend(self, ack_ids: list[str], seconds: float) -> None:
        """Set deadlines anew; 0 gives back."""
        for ack_id in ack_ids:
            entry = self._leased.get(ack_id)
            if entry is None:
                continue
            if seconds > 0:
                self._until(entry, seconds)
            else:
                self._give_back(entry)
        self.deal()

    def close_softly(self, stream: Stream) -> None:
        """Deal no more to a stream; what is leased to it is still sent."""
        if stream.open:
            stream.open = False
            self.streams.remove(stream)
            stream.news.set()

    def leave(self, stream: Stream) -> None:
        """Deal no more to a stream; what was not sent yet waits again, what was stays leased."""
        self.close_softly(stream)
        if stream.outbox:
            for ack_id, entry in list(stream.outbox):
                if entry.ack_id != ack_id:
                    continue
                entry.attempt -= 1
                self._end_lease(entry)
                heapq.heappush(self._waiting, (entry.order, entry))
            stream.outbox.clear()
        self.deal()

    def _give_back(self, entry: Entry) -> None:
        """Have it wait again, and what followed it under its key as well (cloud.google.com/pubsub/docs/ordering)."""
        key = entry.message.ordering_key if self.described.enable_message_ordering else ""
        after = [e for e in self._leased.values() if key and e.message.ordering_key == key and e.order > entry.order]
        for one in (entry, *after):
            self._end_lease(one)
            policy = self.described.dead_letter_policy
            if policy.dead_letter_topic and one is entry and one.attempt >= policy.max_delivery_attempts:
                self._entries.pop(one.message.message_id, None)
                self._bury(self, one.message)
            else:
                heapq.heappush(self._waiting, (one.order, one))

    def _end_lease(self, entry: Entry) -> None:
        del self._leased[entry.ack_id]
        entry.ack_id = ""
        stream, entry.stream = entry.stream, None
        if stream is None:
            return
        stream.count -= 1
        stream.bytes -= entry.size
        key = entry.message.ordering_key
        if key in self._keys:
            left = self._keys[key][1] - 1
            if left:
                self._keys[key] = (stream, left)
            else:
                del self._keys[key]
        for item in self._held_back.pop(key, ()):
            heapq.heappush(self._waiting, item)

    def end(self) -> None:
        """Deal out nothing more, for good."""
        if self._timer is not None:
            self._timer.cancel()
        for stream in self.streams:
            stream.open = False
            stream.news.set()
        self.streams.clear()
