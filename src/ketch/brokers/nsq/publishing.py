"""Publishing: events wait for the connection and for nsqd's answers; what is published together shares commands."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from typing import TYPE_CHECKING

from ...errors import BrokerError, BrokerUnavailable
from . import protocol
from .connection import Connection, connect

if TYPE_CHECKING:
    from ...broker import Site
    from .config import Config
    from .protocol import Received

log = logging.getLogger("ketch.broker")

#: What one command takes at most; nsqd's own limit is 5 MiB (`--max-body-size`).
_MOST = 1000
_MOST_BYTES = 4 * 1024 * 1024

#: Seconds before the first further try to connect, doubled for each up to the longest.
FIRST_WAIT = 0.1
LONGEST_WAIT = 10.0

#: Errors for which nsqd refuses a whole command, though only one of its messages may be at fault.
_OF_ONE = ("E_BAD_MESSAGE", "E_BAD_BODY")


class _Event:
    """One event on its way."""

    __slots__ = ("alone", "body", "delay", "ends", "taken", "topic")

    def __init__(self, topic: str, body: bytes, delay: int, ends: float, taken: asyncio.Future[None]) -> None:
        self.topic = topic
        self.body = body
        self.delay = delay
        self.ends = ends
        self.taken = taken
        self.alone = delay > 0

    def fail(self, error: BrokerError) -> None:
        if not self.taken.done():
            self.taken.set_exception(error)


class Publishing:
    """A program's publications, over one connection that is kept up."""

    def __init__(self, config: Config, site: Site) -> None:
        self._config = config
        self._site = site
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._waiting: deque[_Event] = deque()
        self._sent: deque[list[_Event]] = deque()
        self._woken = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.trouble = ""

    async def open(self) -> None:
        """Connect to the first nsqd that answers, and keep connected.

        Raises:
            BrokerError: none does, or none wants us.
        """
        self._connection = await self._connect()
        self._task = asyncio.create_task(self._keep(self._connection))

    async def _connect(self) -> Connection:
        failure: BrokerError = BrokerUnavailable("nsq: no address")
        for address in self._config.addresses:
            try:
                return await connect(self._config, self._site, address, _unexpected)
            except BrokerError as error:
                failure = error
        raise failure

    async def _keep(self, connection: Connection) -> None:
        while True:
            await connection.lost.wait()
            self._connection = None
            self.trouble = f"{self._config.location}: {connection.why}"
            log.warning("nsq: lost the connection for publishing, trying on: %s", connection.why)
            self._again()
            connection = await self._reconnect()
            self._connection, self.trouble = connection, ""
            log.warning("nsq: the connection for publishing is back")
            self._wake()

    def _again(self) -> None:
        """Put what wasn't answered first in the row; nsqd may have it already, and then it comes twice."""
        for batch in reversed(self._sent):
            self._waiting.extendleft(reversed(batch))
        self._sent.clear()

    async def _reconnect(self) -> Connection:
        wait = FIRST_WAIT
        while True:
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - to be apart from others, no secret
            try:
                return await self._connect()
            except BrokerError as error:
                self.trouble = str(error)
            wait = min(wait * 2, LONGEST_WAIT)

    async def publish(self, topic: str, body: bytes, delay: float) -> None:
        """Send an event; return when nsqd has it.

        Raises:
            BrokerError: nsqd refuses it, or it hasn't answered in time.
        """
        taken: asyncio.Future[None] = self._loop.create_future()
        ends = self._loop.time() + self._config.timeout
        self._waiting.append(_Event(topic, body, round(delay * 1000), ends, taken))
        if not self._woken:
            # At the end of this turn of the loop: who publishes in the same turn comes along.
            self._woken = True
            self._loop.call_soon(self._wake)
        if self._timer is None:
            self._timer = self._loop.call_at(ends, self._expire)
        await taken

    def _wake(self) -> None:
        self._woken = False
        connection = self._connection
        while connection is not None and self._waiting and not connection.lost.is_set():
            batch = self._next()
            if batch:
                self._sent.append(batch)
                connection.ask(_command(batch), self._answered)

    def _next(self) -> list[_Event]:
        """Return what goes into the next command; who gave up waiting is left out."""
        waiting = self._waiting
        batch: list[_Event] = []
        size = 0
        while waiting and len(batch) < _MOST and size < _MOST_BYTES:
            event = waiting[0]
            if batch and (event.topic != batch[0].topic or event.alone or batch[0].alone):
                break
            if batch and size + len(event.body) > _MOST_BYTES:
                break
            waiting.popleft()
            if not event.taken.done():
                batch.append(event)
                size += len(event.body)
        return batch

    def _answered(self, answer: bytes | BrokerError) -> None:
        if isinstance(answer, BrokerUnavailable) or not self._sent:
            return  # the connection has ended: they are sent again
        batch = self._sent.popleft()
        if not isinstance(answer, BrokerError):
            for event in batch:
                if not event.taken.done():
                    event.taken.set_result(None)
        elif len(batch) > 1 and str(answer).startswith(_OF_ONE):
            for event in batch:
                event.alone = True
            self._sent.appendleft(batch)
            if self._connection is not None:  # nsqd ends it anyway; on the next one each goes by itself
                self._connection.abort(str(answer))
        else:
            for event in batch:
                event.fail(BrokerError(f"{self._config.location}: can't publish to {event.topic}: {answer}"))

    def _expire(self) -> None:
        """Fail what has waited too long: the oldest is first in its row."""
        self._timer = None
        now = self._loop.time()
        late = BrokerUnavailable(
            f"{self._config.location}: no confirmation within {self._config.timeout:g} s"
            + (f": {self.trouble}" if self.trouble else "")
        )
        while self._waiting and (self._waiting[0].ends <= now or self._waiting[0].taken.done()):
            self._waiting.popleft().fail(late)
        for batch in self._sent:
            if batch[0].ends > now:
                break
            for event in batch:
                if event.ends <= now:
                    event.fail(late)
        oldest = [row[0].ends for row in (*list(self._sent)[-1:], self._waiting) if row]
        if oldest:
            self._timer = self._loop.call_at(max(min(oldest), now + self._config.timeout / 10), self._expire)

    async def close(self) -> None:
        """Send what waits, as far as nsqd takes it in time."""
        open_events = [event.taken for event in (*self._waiting, *(e for batch in self._sent for e in batch))]
        if open_events:
            await asyncio.wait(open_events, timeout=self._config.timeout)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._timer is not None:
            self._timer.cancel()
        if self._connection is not None:
            await self._connection.close(self._config.timeout)
        closed = BrokerUnavailable("nsq: the broker was closed before nsqd had the event")
        for event in (*self._waiting, *(e for batch in self._sent for e in batch)):
            event.fail(closed)


def _command(batch: list[_Event]) -> bytes:
    first = batch[0]
    if first.delay > 0:
        return protocol.with_body(f"DPUB {first.topic} {first.delay}", first.body)
    if len(batch) == 1:
        return protocol.with_body(f"PUB {first.topic}", first.body)
    return protocol.mpub(first.topic, [event.body for event in batch])


def _unexpected(messages: list[Received]) -> None:
    """Say that messages came though nothing was subscribed to."""
    log.error("nsq: %d messages came to the connection for publishing", len(messages))
