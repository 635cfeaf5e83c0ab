"""One JetStream consumer's member: pulls, extends, settles."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from nats import errors

from ...broker import Delivery, Outcome, Subscription
from ...errors import BrokerError
from ...message import Message
from ...nats.driver import unexpected
from ...nats.wire import RawHeaders, Received, round_trip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats.aio.client import Client

    from ...nats.wire import Sink
    from .streams import Streams

log = logging.getLogger("ketch.broker")

#: Seconds for which one pull waits for events, and between two signs of life from the server meanwhile.
_EXPIRES: Final = 30.0
_HEARTBEAT: Final = 5.0

#: Seconds to leave, and between two tries to find the consumer again.
_LEAVE: Final = 5.0
_AGAIN: Final = 1.0

#: Fields of `$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.…`; with a domain there are two more before.
_FIELDS: Final = 9
_DELIVERED: Final = 4


class PullSubscription(Subscription):
    """A member of a group: it asks for as many events as it may hold, and asks again when the server falls silent.

    Args:
        streams: to declare what is gone.
        topic, group: what it is for.
        prefetch: deliveries taken and not settled, at most.
        ack_wait: the consumer's, in seconds.
    """

    def __init__(self, streams: Streams, topic: str, group: str | None, prefetch: int, ack_wait: float) -> None:
        self.topic = topic
        self._streams = streams
        self._group = group
        self._limit = prefetch
        self._ack_wait = ack_wait
        self._stream = self._consumer = ""
        self._taken: dict[bytes, Delivery] = {}
        self._ready: deque[Delivery] = deque()
        self._outstanding = 0
        self._asked = 0
        self._last = 0.0
        self._sequence = 0
        self._readable = asyncio.Event()
        self._wanted = asyncio.Event()
        self._stopped = False
        self._closed = False
        self._lost = ""
        self._failure: BrokerError | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def trouble(self) -> str:
        """Why the server gives nothing."""
        return str(self._failure or self._lost)

    async def open(self, client: Client, sinks: dict[int, Sink], *, since: float | None) -> None:
        """Declare the consumer and begin to pull.

        Raises:
            BrokerError: the server refuses or doesn't answer.
        """
        found = await self._streams.consumer(self.topic, self._group, since=since)
        self._stream, self._consumer, self._sequence = found
        self._client, self._sinks = client, sinks
        self._inbox = client.new_inbox()
        self._driver: Any = await client.subscribe(f"{self._inbox}.*", cb=unexpected)
        sinks[self._driver._id] = self._take  # noqa: SLF001 - the id that messages come with
        self._tasks = [
            asyncio.create_task(self._pull(), name=f"ketch pulling {self.topic}"),
            asyncio.create_task(self._extend(), name=f"ketch holding {self.topic}"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._died)

    def _died(self, task: asyncio.Task[None]) -> None:
        """Hear that a task has ended; unless that was wanted, no more would come, in silence."""
        if self._stopped or self._closed:
            return
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self._failure = BrokerError(f"{self.topic}: {task.get_name()} broke off: {error!r}")
        self._failure.__cause__ = error
        self._readable.set()

    # what comes

    async def _take(self, batch: list[Received]) -> None:
        self._last = asyncio.get_running_loop().time()
        for subject, headers, body, reply in batch:
            if reply.startswith(b"$JS.ACK."):
                self._add(subject, headers, body, reply)
            elif headers is not None:
                self._note(subject, headers.status)
        if self._ready:
            self._readable.set()
        if self._room() * 2 >= self._limit:
            self._wanted.set()

    def _add(self, subject: str, headers: RawHeaders | None, body: bytes, reply: bytes) -> None:
        fields = reply.split(b".")
        at = _DELIVERED if len(fields) == _FIELDS else _DELIVERED + 2
        try:
            attempt, sequence = int(fields[at]), int(fields[at + 1])
        except (ValueError, IndexError):
            log.warning("nats: a delivery of %s with an odd reply subject is left alone", self.topic)
            return
        self._sequence = max(sequence, self._sequence)
        self._outstanding = max(0, self._outstanding - 1)
        delivery = Delivery(Message(subject, {} if headers is None else headers, body), attempt, reply)
        self._taken[reply] = delivery
        self._ready.append(delivery)

    def _note(self, subject: str, status: str) -> None:
        """Take a pull's end, or a sign of life while it waits."""
        if status.startswith("100"):
            return
        if subject.rpartition(".")[2] == str(self._asked):  # that of an earlier pull changes nothing
            self._outstanding = 0
        if status.startswith(("409", "503")):
            log.info("nats: %s: %s", self.topic, status)
            if "Deleted" in status or status.startswith("503"):
                self._lost = f"the consumer of {self.topic} is gone"
        self._wanted.set()

    # asking

    def _room(self) -> int:
        return self._limit - len(self._taken) - self._outstanding

    async def _pull(self) -> None:
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        while not self._stopped:
            silent = loop.time() - self._last > 2 * _HEARTBEAT
            if (self._lost or (silent and self._outstanding)) and not await self._find_again():
                await asyncio.sleep(_AGAIN)
                continue
            room = self._room()
            if self._client.is_connected and room > 0 and (room * 2 >= self._limit or not self._outstanding):
                await self._ask(room)
            self._wanted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HEARTBEAT):
                    await self._wanted.wait()

    async def _ask(self, count: int) -> None:
        self._asked += 1
        self._outstanding += count
        question = b'{"batch":%d,"expires":%d,"idle_heartbeat":%d}' % (
            count,
            _EXPIRES * 1e9,
            _HEARTBEAT * 1e9,
        )
        try:
            await self._client.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}", question, f"{self._inbox}.{self._asked}"
            )
        except errors.Error as error:
            self._outstanding = 0
            log.warning("nats: can't ask for events of %s: %s", self.topic, error)

    def reconnected(self) -> None:
        """Ask anew: the server has forgotten what was asked before."""
        self._outstanding = 0
        self._lost = self._lost or f"looking for the consumer of {self.topic}"
        self._wanted.set()

    async def _find_again(self) -> bool:
        """See to it that the consumer is there; the server may have come back without it."""
        try:
            if not (self._consumer and await self._streams.exists(self._stream, self._consumer)):
                self._streams.forget()
                after = await self._streams.after(self.topic, self._sequence)
                found = await self._streams.consumer(self.topic, self._group, after=after)
                self._stream, self._consumer, self._sequence = found
                log.warning("nats: the consumer of %s was made again", self.topic)
        except BrokerError as error:
            self._lost = f"the consumer of {self.topic} can't be found: {error}"
            return False
        self._lost = ""
        self._outstanding = 0
        self._last = asyncio.get_running_loop().time()
        return True

    # what the consumer does

    async def receive(self) -> Sequence[Delivery]:
        """Return what has come."""
        while not self._ready:
            if self._stopped:
                return ()
            if self._failure is not None:
                raise self._failure
            self._readable.clear()
            await self._readable.wait()
        batch = list(self._ready)
        self._ready.clear()
        return batch

    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Acknowledge, in one write. Should it be lost with the connection, the deliveries come again."""
        if not self._client.is_connected:
            for delivery, _ in settled:
                self._taken.pop(_reply(delivery), None)
            raise BrokerError(f"{self.topic}: the connection is lost")
        commands: list[bytes] = []
        for delivery, outcome in settled:
            reply = _reply(delivery)
            if self._taken.pop(reply, None) is None:
                continue
            if outcome is Outcome.DONE:
                commands.append(b"PUB %b 0\r\n\r\n" % reply)
            else:
                said = b'-NAK {"delay":%d}' % (delivery.retry_after * 1e9) if delivery.retry_after > 0 else b"-NAK"
                commands.append(b"PUB %b %d\r\n%b\r\n" % (reply, len(said), said))
        await self._send(commands)
        if self._room() * 2 >= self._limit:
            self._wanted.set()

    async def _send(self, commands: list[bytes]) -> None:
        if commands:
            await self._client._send_command(b"".join(commands))  # noqa: SLF001 - one write for all, see decision 3
            await self._client._flush_pending()  # noqa: SLF001

    async def _extend(self) -> None:
        while not self._closed:
            await asyncio.sleep(self._ack_wait / 3)
            if self._client.is_connected:
                await self._send([b"PUB %b 4\r\n+WPI\r\n" % reply for reply in self._taken])

    async def limit(self, unsettled: int) -> None:
        """Hold fewer or more from now on."""
        self._limit = unsettled
        self._wanted.set()

    async def stop(self) -> None:
        """Ask no more, and take what is on its way."""
        if self._stopped:
            return
        self._stopped = True
        self._tasks[0].cancel()
        try:
            async with asyncio.timeout(_LEAVE):
                await self._driver.drain()
                await round_trip(self._client, _LEAVE)
        except (errors.Error, TimeoutError, OSError) as error:
            log.info("nats: left %s without the server's answer: %s", self.topic, str(error) or "no answer")
        self._sinks.pop(self._driver._id, None)  # noqa: SLF001 - as in open
        self._readable.set()

    async def close(self) -> None:
        """Give back what was not settled."""
        await self.stop()
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._ready.clear()
        if self._client.is_connected:
            try:
                await self._send([b"PUB %b 4\r\n-NAK\r\n" % reply for reply in self._taken])
                await round_trip(self._client, _LEAVE)
                if self._group is None:
                    await self._streams.forget_consumer(self._stream, self._consumer)
            except (errors.Error, TimeoutError, OSError, BrokerError) as error:
                log.info("nats: left %s without the server's answer: %s", self.topic, str(error) or "no answer")
        self._taken.clear()


def _reply(delivery: Delivery) -> bytes:
    reply = delivery.raw
    return reply if isinstance(reply, bytes) else b""
