"""Publisher: events on their way out, until the server has confirmed them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from ...errors import BrokerError, BrokerUnavailable, MessageTooLarge
from .connection import MAX_BODY, MAX_PACKET
from .packets import FAILURE, MAXIMUM_PACKET_SIZE, MAXIMUM_QOS, RECEIVE_MAXIMUM, Answer, publish

if TYPE_CHECKING:
    from .connection import Connection

#: Bytes of a packet beside topic, properties and payload, at most.
_FRAME = 8


class _Pending:
    """An event that isn't confirmed."""

    __slots__ = ("due", "tail", "taken", "topic")

    def __init__(self, topic: bytes, tail: bytes, due: float, taken: asyncio.Future[None]) -> None:
        self.topic = topic
        self.tail = tail
        self.due = due
        self.taken = taken


class Publisher:
    """Sends events over whatever connection there is, as many at a time as the server takes, in order.

    What was sent and not confirmed when a connection is lost is sent again over the next one. There is one timer for
    all of them.
    """

    def __init__(self, qos: int, timeout: float, location: str) -> None:
        self._qos = qos
        self._timeout = timeout
        self._location = location
        self._connection: Connection | None = None
        self._window = 0
        self._max_packet = MAX_PACKET
        self._waiting: deque[_Pending] = deque()
        self._flying: dict[int, _Pending] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._connected = asyncio.Event()

    def attach(self, connection: Connection, welcome: Answer) -> None:
        """Use a connection from now on.

        Raises:
            BrokerError: its server doesn't do what was asked for.
        """
        if self._qos > welcome.properties.get(MAXIMUM_QOS, 2):
            raise BrokerError("the server only does QoS 0; say ?qos=0 in the URL if that is enough")
        self._window = min(welcome.properties.get(RECEIVE_MAXIMUM, 0xFFFF), 0xFFFE) or 1
        self._max_packet = min(MAX_PACKET, welcome.properties.get(MAXIMUM_PACKET_SIZE, MAX_PACKET))
        self._connection = connection
        self._connected.set()
        self._pump()

    def detach(self) -> None:
        """Be without a connection."""
        self._connection = None
        self._connected.clear()
        self._waiting.extendleft(pending for pending in reversed(self._flying.values()) if not pending.taken.done())
        self._flying.clear()

    @property
    def used(self) -> dict[int, _Pending]:
        """The ids that events on their way have."""
        return self._flying

    async def publish(self, topic: bytes, tail: bytes, size: int) -> None:
        """Send an event, and return when the server has it; at QoS 0, when it is written.

        Raises:
            BrokerUnavailable: the server doesn't take it in time.
            MessageTooLarge: it is over its limit.
            BrokerError: it refuses the event.
        """
        if size > MAX_BODY or len(topic) + len(tail) + _FRAME > self._max_packet:
            limit = min(MAX_BODY, self._max_packet)
            raise MessageTooLarge(f"{self._location}: an event of {size} bytes is over the limit of {limit}")
        if not self._qos:
            await self._write(topic, tail)
            return
        loop = asyncio.get_running_loop()
        pending = _Pending(topic, tail, loop.time() + self._timeout, loop.create_future())
        self._waiting.append(pending)
        self._pump()
        if self._timer is None:
            self._timer = loop.call_at(pending.due, self._expire)
        await pending.taken

    async def _write(self, topic: bytes, tail: bytes) -> None:
        """Write an event at QoS 0."""
        connection = self._connection
        if connection is not None and connection.crowded:
            await asyncio.sleep(0)
            connection = self._connection
        if connection is None or not connection.writable.is_set():
            try:
                async with asyncio.timeout(self._timeout):
                    connection = await self._room()
            except TimeoutError:
                raise BrokerUnavailable(f"{self._location}: can't be reached for {self._timeout:g} s") from None
        connection.write(publish(topic, tail))

    async def _room(self) -> Connection:
        while True:
            await self._connected.wait()
            connection = self._connection
            if connection is not None:
                await connection.writable.wait()
                if connection is self._connection:
                    return connection

    def confirmed(self, id: int, reason: int) -> None:  # noqa: A002 - MQTT's word
        """Take the server's word for an event."""
        pending = self._flying.pop(id, None)
        if pending is not None and not pending.taken.done():
            if reason < FAILURE:
                pending.taken.set_result(None)
            else:
                why = f"{self._location}: the server refuses the event: reason 0x{reason:02x}"
                pending.taken.set_exception(BrokerError(why))
        if self._waiting:
            self._pump()

    def _pump(self) -> None:
        connection, waiting, flying = self._connection, self._waiting, self._flying
        if connection is None:
            return
        while waiting and len(flying) < self._window:
            pending = waiting.popleft()
            if not pending.taken.done():
                id = connection.next_id(flying)  # noqa: A001 - MQTT's word
                flying[id] = pending
                connection.write(publish(pending.topic, pending.tail, id=id))

    def _expire(self) -> None:
        """Give up what has waited too long; look again when the next is due."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for pending in (*self._flying.values(), *self._waiting):
            if pending.taken.done():
                continue
            if pending.due > now:
                self._timer = loop.call_at(pending.due, self._expire)
                return
            pending.taken.set_exception(
                BrokerUnavailable(f"{self._location}: the server didn't take an event within {self._timeout:g} s")
            )

    async def drain(self) -> None:
        """Return when everything was confirmed or given up."""
        while left := [p.taken for p in (*self._flying.values(), *self._waiting) if not p.taken.done()]:
            await asyncio.wait(left)

    def close(self) -> None:
        """Stop the timer; whoever still waits is told."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for pending in (*self._flying.values(), *self._waiting):
            if not pending.taken.done():
                pending.taken.set_exception(BrokerUnavailable(f"{self._location}: the broker was closed"))
        self._flying.clear()
        self._waiting.clear()
        self._connection = None
        self._connected.clear()
