"""Topics and channels: messages that wait, that are in flight, that come later."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import os
import time
from collections import deque
from typing import Protocol

#: Seconds after delivery that touching a message extends its timeout to at most (`--max-msg-timeout`).
LONGEST_TIMEOUT = 900.0

#: Messages that an ephemeral channel keeps (`--mem-queue-size`); what is more is dropped.
EPHEMERAL_ROOM = 10_000

_ids = itertools.count(int.from_bytes(os.urandom(7), "big") << 8)


class Client(Protocol):
    """Who messages are sent to."""

    in_flight: int
    msg_timeout: float

    @property
    def is_ready(self) -> bool:
        """Whether it takes one more message."""

    def send(self, message: Stored) -> None:
        """Send a message."""


class Stored:
    """A message of one channel."""

    __slots__ = ("attempts", "body", "delivered", "due", "id", "owner", "timestamp")

    def __init__(self, body: bytes, id_: bytes = b"", timestamp: int = 0, attempts: int = 0) -> None:
        self.body = body
        self.id = id_ or b"%016x" % (next(_ids) & ((1 << 64) - 1))
        self.timestamp = timestamp or time.time_ns()
        self.attempts = attempts
        self.owner: Client | None = None
        self.delivered = 0.0
        self.due = 0.0  # when its timeout ends, or when it comes later

    def copy(self) -> Stored:
        """Return it for another channel."""
        return Stored(self.body, self.id, self.timestamp)


class Channel:
    """A group's messages."""

    def __init__(self, topic: Topic, name: str) -> None:
        self.topic = topic
        self.name = name
        self.clients: deque[Client] = deque()
        self.waiting: deque[Stored] = deque()
        self.in_flight: dict[bytes, Stored] = {}
        self.later: dict[bytes, Stored] = {}
        self._due: list[tuple[float, int, Stored]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._serial = itertools.count()

    @property
    def ephemeral(self) -> bool:
        """Whether it ends with its last client."""
        return self.name.endswith("#ephemeral")

    def put(self, message: Stored) -> None:
        """Take a message in."""
        if self.ephemeral and len(self.waiting) >= EPHEMERAL_ROOM:
            return
        self.waiting.append(message)

    def put_later(self, message: Stored, seconds: float) -> None:
        """Take a message in that is to come after a while."""
        message.owner = None
        self.later[message.id] = message
        self._set(message, asyncio.get_running_loop().time() + seconds)

    def deal(self) -> None:
        """Send what waits to clients that are ready, in turns."""
        while self.waiting:
            for _ in range(len(self.clients)):
                self.clients.rotate(-1)
                if self.clients[0].is_ready:
                    break
            else:
                return
            self._send(self.waiting.popleft(), self.clients[0])

    def _send(self, message: Stored, client: Client) -> None:
        message.attempts += 1
        message.owner = client
        message.delivered = asyncio.get_running_loop().time()
        self.in_flight[message.id] = message
        client.in_flight += 1
        self._set(message, message.delivered + client.msg_timeout)
        client.send(message)

    def _owned(self, id_: bytes, client: Client) -> Stored | None:
        message = self.in_flight.get(id_)
        return message if message is not None and message.owner is client else None

    def finish(self, id_: bytes, client: Client) -> bool:
        """Be done with a message; False if it isn't this client's."""
        message = self._owned(id_, client)
        if message is None:
            return False
        self._land(message)
        self.deal()
        return True

    def requeue(self, id_: bytes, client: Client, seconds: float) -> bool:
        """Have a message come again; False if it isn't this client's."""
        message = self._owned(id_, client)
        if message is None:
            return False
        self._land(message)
        if seconds > 0:
            self.put_later(message, seconds)
        else:
            self.put(message)
        self.deal()
        return True

    def touch(self, id_: bytes, client: Client) -> bool:
        """Begin a message's timeout anew, within limits; False if it isn't this client's."""
        message = self._owned(id_, client)
        if message is None:
            return False
        now = asyncio.get_running_loop().time()
        self._set(message, min(now + client.msg_timeout, message.delivered + LONGEST_TIMEOUT))
        return True

    def _land(self, message: Stored) -> None:
        del self.in_flight[message.id]
        if message.owner is not None:
            message.owner.in_flight -= 1
        message.owner = None

    def _set(self, message: Stored, due: float) -> None:
        message.due = due
        heapq.heappush(self._due, (due, next(self._serial), message))
        self._rearm()

    def _rearm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            self._timer = asyncio.get_running_loop().call_at(self._due[0][0], self._pass)

    def _pass(self) -> None:
        """Put back what has timed out, take in what was to come now."""
        now = asyncio.get_running_loop().time()
        while self._due and self._due[0][0] <= now:
            due, _, message = heapq.heappop(self._due)
            if message.due != due:
                continue  # touched, or settled and requeued, meanwhile
            if self.later.pop(message.id, None) is not None:
                self.put(message)
            elif self.in_flight.get(message.id) is message:
                self._land(message)
                self.put(message)
        self._rearm()
        self.deal()

    def leave(self, client: Client) -> None:
        """Send a client nothing more; what it has in flight times out."""
        if client in self.clients:
            self.clients.remove(client)
        if self.ephemeral and not self.clients:
            self.topic.channels.pop(self.name, None)
            if self._timer is not None:
                self._timer.cancel()


class Topic:
    """A topic: every channel gets every message; the first one also what came before it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.channels: dict[str, Channel] = {}
        self.waiting: list[tuple[Stored, float]] = []

    def channel(self, name: str) -> Channel:
        """Return a channel, made if there is none."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(self, name)
            waiting, self.waiting = self.waiting, []
            for message, delay in waiting:
                self.put(message, delay)
        return channel

    def put(self, message: Stored, delay: float = 0.0) -> None:
        """Take a message in."""
        if not self.channels:
            self.waiting.append((message, delay))
        for channel in self.channels.values():
            if delay > 0:
                channel.put_later(message.copy(), delay)
            else:
                channel.put(message.copy())
                channel.deal()
