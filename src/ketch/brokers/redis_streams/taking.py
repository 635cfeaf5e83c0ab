"""Taking: what both kinds of subscriptions share.

They read ahead, up to the prefetch, with one blocking command at a time on a connection of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from hiredis import ReplyError

from ...broker import Subscription
from ...errors import BrokerError, BrokerUnavailable
from ...resp.link import Link
from ...resp.refusal import away, no_group, refusal
from .entry import delivery
from .hand import Hand

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...broker import Delivery
    from ...resp.config import Config
    from ...resp.connection import Argument, Connection

log = logging.getLogger("ketch.broker")

#: Seconds between two looks at what else is to be delivered, beside what is new in the stream.
TENDING = 0.5

#: Seconds between two tries to wake a command that blocks on the server.
_WAKING = 0.05


class Taking(Subscription):
    """A subscription that reads ahead.

    Args:
        config: the server.
        name: what the server's `CLIENT LIST` shows for its connection.
        main: the broker's link.
        topic: the stream.
        prefetch: how many may be taken and not settled.
    """

    def __init__(self, config: Config, name: str, main: Link, topic: str, prefetch: int) -> None:
        self.topic = topic
        self._config = config
        self._reader = Link(config, name, greet=self._greet, blocks=TENDING, quiet=True)
        self._main = main
        self._hand = Hand(prefetch)
        self._loop = asyncio.get_running_loop()
        self._position = b"0-0"  # the id of the last entry that was read
        self._tend_at = 0.0
        self._tending = TENDING
        self._client: Argument = 0
        self._ended = asyncio.Event()
        self._blocked = self._stopping = self._closed = self._astray = self._starving = False
        self._error: BrokerError | None = None
        self._task: asyncio.Task[None] | None = None
        #: Called once it is closed.
        self.left: Callable[[Subscription], None] = _nothing

    async def open(self, since: float | None) -> None:
        """Begin to read.

        Raises:
            BrokerUnavailable: the server can't be reached.
            hiredis.ReplyError: it won't let us.
        """
        await self._reader.open()
        try:
            await self._begin(await self._reader.up(), since)
        except BaseException:
            await self._reader.close()
            raise
        self._task = asyncio.create_task(self._run())

    async def _greet(self, connection: Connection) -> None:
        """Learn how the server calls a new connection."""
        try:
            self._client = await connection.request("CLIENT", "ID")
        except ReplyError as error:
            # Then a command that blocks ends by itself, in half a second.
            log.debug("redis-streams: %s: commands can't be woken: %s", self._config.location, error)

    # --- for the subclasses

    @abstractmethod
    async def _begin(self, connection: Connection, since: float | None) -> None:
        """Find out where to start."""

    @abstractmethod
    def _read(self, count: int, milliseconds: int) -> tuple[Argument, ...]:
        """Return the command that reads so many entries and blocks so long."""

    @abstractmethod
    async def _tend(self, connection: Connection) -> float:
        """Do what is to be done from time to time; return the loop's time at which to do so again."""

    @abstractmethod
    async def _recover(self, connection: Connection) -> None:
        """Take up where it was, on a new connection or with a stream or group that has gone."""

    # --- reading ahead

    async def _run(self) -> None:
        try:
            connection = await self._reader.back()
            while True:
                try:
                    if self._astray or connection.lost.is_set():
                        connection = await self._reader.back()
                        await self._recover(connection)
                        self._astray = False
                        self._tend_at = 0.0
                    await self._turn(connection)
                except BrokerUnavailable as error:
                    log.debug("redis-streams: %s: %s", self.topic, error)
                except ReplyError as error:
                    self._refused(error)
                    await asyncio.sleep(_WAKING)  # whoever deletes it all the time must not keep us busy
        except BrokerError as error:
            self._error = error
        except Exception as error:  # a task that ends in silence would be a deaf consumer
            log.exception("redis-streams: taking from %s ended", self.topic)
            self._error = BrokerError(f"{self._config.location}: taking from {self.topic} ended: {error!r}")
        finally:
            self._end()

    def _refused(self, error: ReplyError) -> None:
        if away(error):
            return
        if not no_group(error):
            raise refusal(self._config.location, f"can't take from {self.topic}", error) from error
        if not self._astray:
            where = self._config.location
            log.warning("redis-streams: %s, or its group, was deleted at %s; it is made again", self.topic, where)
        self._astray = True

    def _end(self) -> None:
        self._ended.set()
        self._hand.filled.set()

    async def _turn(self, connection: Connection) -> None:
        now = self._loop.time()
        if now >= self._tend_at:
            self._tend_at = now + self._tending
            self._tend_at = min(self._tend_at, await self._tend_as_far_as_it_goes(connection))
            now = self._loop.time()
        if self._stopping:
            self._end()  # what is in hand is tended on, until the end
        count = 0 if self._stopping else self._hand.wanted
        if not count:
            await self._hand.emptier(self._tend_at - now)
            return
        self._blocked = True
        try:
            reply = await connection.request(*self._read(count, max(1, int((self._tend_at - now) * 1000))))
        finally:
            self._blocked = False
        if reply:
            entries = reply[0][1]
            self._position = entries[-1][0]
            self._put([delivery(self.topic, entry_id, fields) for entry_id, fields in entries])

    async def _tend_as_far_as_it_goes(self, connection: Connection) -> float:
        try:
            when = await self._tend(connection)
        except ReplyError as error:
            # A full server lets nothing be written, but what is there can be taken and settled: so it gets room.
            if not str(error).startswith("OOM"):
                raise
            if not self._starving:
                log.warning("redis-streams: %s: nothing comes again for now: %s", self.topic, error)
            self._starving = True
            return math.inf
        self._starving = False
        return when

    def _put(self, deliveries: list[Delivery]) -> None:
        if not self._ended.is_set():  # what comes too late is the server's to give to others
            self._hand.put(deliveries)

    def _hurry(self, when: float) -> None:
        """Tend at some time of the loop's, or before."""
        if when < self._tend_at:
            self._tend_at = when
            self._wake()

    def _wake(self) -> None:
        """End the wait for room, or the command that blocks: it was sent with too long a time."""
        self._hand.nudge()
        main = self._main.connection
        if self._blocked and main is not None:
            main.request("CLIENT", "UNBLOCK", self._client).add_done_callback(_seen)

    # --- the contract

    async def receive(self) -> Sequence[Delivery]:
        """Return what was read."""
        hand = self._hand
        while not (batch := hand.receive()):
            if self._error is not None:
                raise self._error
            if self._ended.is_set():
                return ()
            hand.filled.clear()
            await hand.filled.wait()
        return batch

    async def limit(self, unsettled: int) -> None:
        """Take fewer or more events ahead."""
        self._hand.limit = unsettled
        self._wake()

    @property
    def trouble(self) -> str:
        """Whether its connection is lost just now."""
        return self._reader.trouble

    async def stop(self) -> None:
        """Read no more; what the server has handed over already is kept."""
        self._stopping = True
        deadline = self._loop.time() + self._config.timeout
        while not (self._ended.is_set() or self._reader.trouble or self._loop.time() > deadline):
            # Again: what wakes the command may have come before the command.
            self._wake()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAKING):
                    await self._ended.wait()
        self._end()

    async def close(self) -> None:
        """Stop and disconnect."""
        if self._closed:
            return
        self._closed = True
        await self.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._hand.clear()
        await self._reader.close()
        self.left(self)


def _nothing(_: Subscription) -> None:
    pass


def _seen(reply: asyncio.Future[Any]) -> None:
    """Take note of a reply that nobody waits for."""
    if not reply.cancelled() and (error := reply.exception()) is not None:
        log.debug("redis-streams: a command that blocks ends by itself: %s", error)
