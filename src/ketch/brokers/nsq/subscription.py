"""One channel's events from every nsqd: in hand, kept from being delivered again, settled."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from ...broker import Delivery, Outcome, Subscription
from ...errors import BrokerError, BrokerUnavailable
from . import protocol
from .envelope import unwrap
from .link import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...broker import Site
    from .config import Config
    from .connection import Connection
    from .protocol import Received

#: Seconds after which what is given back comes at the latest: nsqd's `--max-req-timeout`.
LONGEST_WAIT = 3600.0


class NsqSubscription(Subscription):
    """A member of a group, or a subscription of its own."""

    def __init__(
        self,
        config: Config,
        site: Site,
        *,
        topic: str,
        nsq_topic: str,
        channel: str,
        prefetch: int,
        gone: Callable[[NsqSubscription], None],
    ) -> None:
        """Describe it.

        Args:
            config: the broker's options.
            site: who we are.
            topic: the topic, and what it is called in NSQ.
            nsq_topic: what it is called in NSQ.
            channel: the group's channel.
            prefetch: how many deliveries may be in hand.
            gone: called once, at the end of `close`.
        """
        self._config = config
        self._topic = topic
        self._limit = self._prefetch = prefetch
        self._gone = gone
        self._queue: deque[Delivery] = deque()
        self._held: dict[tuple[Link, bytes], Delivery] = {}  # in the queue or taken
        self._ready = asyncio.Event()
        self._stopped = self._closed = False
        self._touching: asyncio.TimerHandle | None = None
        self._links = [
            Link(
                config,
                site,
                address,
                topic=nsq_topic,
                channel=channel,
                ready=self._share(prefetch),
                take=self._take,
            )
            for address in config.addresses
        ]

    def _share(self, count: int) -> int:
        """Return one nsqd's part of so many deliveries."""
        return max(1, count // len(self._config.addresses))

    async def start(self) -> None:
        """Begin to take, from those nsqds that answer; the others are tried on.

        Raises:
            BrokerError: none does, or one won't let us.
        """
        failures = [f for f in await asyncio.gather(*(link.start() for link in self._links)) if f is not None]
        refused = [failure for failure in failures if not isinstance(failure, BrokerUnavailable)]
        if refused or len(failures) == len(self._links):
            raise (refused or failures)[0]
        self._touch_later()

    @property
    def trouble(self) -> str:
        """Which nsqd sends nothing, and why."""
        return "" if self._stopped else next((link.trouble for link in self._links if link.trouble), "")

    # --- taking

    def _take(self, link: Link, messages: list[Received]) -> None:
        connection = link.connection
        for message in messages:
            name = (link, message.id)
            known = self._held.get(name)
            if known is not None:
                known.raw = (name, connection)  # the one in hand, once more, over a new connection
                continue
            delivery = Delivery(unwrap(self._topic, message.body), max(1, message.attempts), (name, connection))
            self._held[name] = delivery
            self._queue.append(delivery)
        self._ready.set()

    async def receive(self) -> Sequence[Delivery]:
        """Return what nsqd has sent."""
        while True:
            room = self._limit - (len(self._held) - len(self._queue))
            if self._queue and room > 0:
                return [self._queue.popleft() for _ in range(min(room, len(self._queue)))]
            if self._stopped and not self._queue:
                return ()
            self._ready.clear()
            await self._ready.wait()

    def _touch_later(self) -> None:
        seconds = self._config.msg_timeout / 3
        self._touching = asyncio.get_running_loop().call_later(seconds, self._touch)

    def _touch(self) -> None:
        """Begin the timeouts of all that is in hand anew."""
        commands: dict[Connection, list[bytes]] = {}
        for (_, id_), delivery in self._held.items():
            raw: Any = delivery.raw
            commands.setdefault(raw[1], []).append(protocol.touch(id_))
        for connection, lines in commands.items():
            if not connection.lost.is_set():
                connection.write(b"".join(lines))
        self._touch_later()

    # --- settling

    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Finish, or give back for now or for later. NSQ confirms neither: what is lost on the way comes again."""
        commands: dict[Connection, list[bytes]] = {}
        late = 0
        for delivery, outcome in settled:
            raw: Any = delivery.raw
            name, connection = raw
            if self._held.pop(name, None) is None:
                continue  # given back when the subscription was closed
            if connection.lost.is_set():
                late += 1
            elif outcome is Outcome.DONE:
                commands.setdefault(connection, []).append(protocol.fin(name[1]))
            else:
                milliseconds = round(min(delivery.retry_after, LONGEST_WAIT) * 1000)
                commands.setdefault(connection, []).append(protocol.req(name[1], milliseconds))
        self._ready.set()
        for connection, lines in commands.items():
            connection.write(b"".join(lines))
        if late:
            raise BrokerError(f"{self._config.location}: the connection of {late} deliveries is lost; they come again")

    async def limit(self, unsettled: int) -> None:
        """Take so many ahead from now on."""
        self._limit = max(1, min(unsettled, self._prefetch))
        if not self._stopped:
            for link in self._links:
                link.ready(self._share(self._limit))
        self._ready.set()

    # --- the end

    async def stop(self) -> None:
        """Take no more from nsqd; what is on its way still comes."""
        if not self._stopped:
            self._stopped = True
            await asyncio.gather(*(link.stop() for link in self._links))
            self._ready.set()

    async def close(self) -> None:
        """Give back what was not settled: nsqd would keep it until its timeout."""
        if self._closed:
            return
        self._closed = True
        await self.stop()
        if self._touching is not None:
            self._touching.cancel()
        for (_, id_), delivery in self._held.items():
            raw: Any = delivery.raw
            if not raw[1].lost.is_set():
                raw[1].write(protocol.req(id_, 0))
        self._queue.clear()
        self._held.clear()
        self._ready.set()
        await asyncio.gather(*(link.close() for link in self._links))
        self._gone(self)
