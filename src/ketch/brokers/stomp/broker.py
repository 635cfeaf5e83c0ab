"""STOMP: connecting, publishing, subscribing."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self

from ...broker import PREFETCH, Broker, Capabilities, Site, Subscription
from ...errors import BrokerError, BrokerUnavailable, SubscriptionRefused
from .config import Config
from .connection import MAX_BODY, Connection
from .envelope import Writer, queue_destination, topic_destination
from .link import Link
from .publisher import Publisher
from .subscription import StompSubscription

if TYPE_CHECKING:
    from ...message import Message
    from ...url import Url
    from .frames import Frame

log = logging.getLogger("ketch.broker")

#: Seconds by which an event may be published ahead where the server has a scheduler, which keeps it on its disk.
_MAX_DELAY = 30 * 86_400.0


class StompBroker(Broker):
    """Carries events over STOMP 1.2 to ActiveMQ, at least once. A group is a queue behind a virtual topic.

    Publishing and consuming have a connection each, so that neither waits for the other.
    """

    name = "stomp"
    capabilities: ClassVar[Capabilities] = Capabilities(
        durable=True, redelivers=True, ordered=True, keyed=True, delays_redelivery=True, max_message_size=MAX_BODY
    )

    def __init__(self, config: Config) -> None:
        if config.scheduler:
            self.capabilities = replace(type(self).capabilities, max_delay=_MAX_DELAY)  # type: ignore[misc]  # only some servers can
        self._config = config
        self._writer = Writer()
        self._publisher = Publisher(config.timeout, config.location)
        self._out: Link | None = None
        self._in: Link | None = None
        self._subscriptions: dict[str, StompSubscription] = {}
        self._count = 0

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `stomp://host:port`; see `config.py` for the options."""
        return cls(Config.from_url(url))

    @property
    def location(self) -> str:
        """The servers, without credentials."""
        return self._config.location

    @property
    def trouble(self) -> str:
        """Whether a connection is lost just now."""
        return next((link.trouble for link in (self._out, self._in) if link is not None and link.trouble), "")

    async def open(self, site: Site) -> None:  # noqa: ARG002 - nothing of the program is needed
        """Connect to one of the servers."""
        if self._out is not None:
            return
        out = Link(
            self._config,
            "publishing",
            ready=self._publish_again,
            on_lost=self._publisher.detach,
            on_messages=_unasked,
            on_answer=self._publisher.answered,
        )
        into = Link(
            self._config,
            "consuming",
            ready=self._subscribe_again,
            on_lost=self._lost,
            on_messages=self._came,
            on_answer=self._late,
        )
        await out.open()
        try:
            await into.open()
        except BaseException:
            await out.close()
            raise
        self._out, self._in = out, into

    async def _publish_again(self, connection: Connection) -> None:
        self._publisher.attach(connection)

    async def _subscribe_again(self, connection: Connection) -> None:
        await asyncio.gather(*(subscription.begin(connection) for subscription in self._subscriptions.values()))

    def _lost(self) -> None:
        for subscription in self._subscriptions.values():
            subscription.lost()

    def _came(self, messages: list[Frame]) -> None:
        batches: dict[str, list[Frame]] = {}
        for message in messages:
            batches.setdefault(message.headers.get("subscription", ""), []).append(message)
        for id, batch in batches.items():  # noqa: A001 - STOMP's word
            subscription = self._subscriptions.get(id)
            if subscription is not None:
                subscription.take(batch)

    def _late(self, receipt: str, why: str) -> None:
        """Take an answer that nobody waits for any more."""
        if why:
            log.warning("stomp: %s refused %s: %s", self.location, receipt, why)

    async def publish(self, message: Message, *, delay: float = 0.0) -> None:
        """Send the event and wait until the server has stored it."""
        out = self._out
        if out is None:
            raise BrokerUnavailable("stomp: the broker isn't open")
        before, after = self._writer.send(message, delay)
        if out.connection is not None and not out.connection.writable.is_set():
            await self._room(out.connection)
        await self._publisher.publish(before, after, len(message.body), alone=delay > 0)

    async def _room(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(self._config.timeout):
                await connection.writable.wait()
        except TimeoutError:
            raise BrokerUnavailable(f"{self.location}: it takes nothing for {self._config.timeout:g} s") from None

    async def subscribe(
        self,
        topic: str,
        *,
        group: str | None,
        prefetch: int = PREFETCH,
        since: float | None = None,  # noqa: ARG002 - it declares no replay
    ) -> Subscription:
        """Subscribe, and wait until the server has it."""
        if self._in is None:
            raise BrokerUnavailable("stomp: the broker isn't open")
        destination = topic_destination(topic) if group is None else queue_destination(topic, group)
        connection = self._in.connection
        if connection is None:
            raise BrokerUnavailable(f"{self.location}: can't subscribe to {topic}: {self.trouble}")
        self._count += 1
        id = f"s{self._count}"  # noqa: A001 - STOMP's word
        subscription = StompSubscription(id, destination, max(prefetch, 1), self._config.timeout, self._left)
        self._subscriptions[id] = subscription
        try:
            await subscription.begin(connection)
        except BaseException as error:
            self._subscriptions.pop(id, None)
            if isinstance(error, BrokerUnavailable):
                raise BrokerUnavailable(f"{self.location}: can't subscribe to {topic}: {error}") from error
            if isinstance(error, BrokerError):
                raise SubscriptionRefused(f"{self.location}: can't subscribe to {topic}: {error}") from error
            raise
        return subscription

    def _left(self, subscription: StompSubscription) -> None:
        self._subscriptions.pop(subscription.id, None)

    async def close(self) -> None:
        """Close the subscriptions, send what was published, disconnect."""
        out, into = self._out, self._in
        if out is None or into is None:
            return
        await asyncio.gather(*(subscription.close() for subscription in list(self._subscriptions.values())))
        self._out = self._in = None
        await self._publisher.drain()
        await asyncio.gather(out.close(), into.close())
        self._publisher.close()


def _unasked(messages: list[Frame]) -> None:
    """Say that messages came to a connection that subscribes to none."""
    log.error("stomp: %d messages came to a connection that asked for none", len(messages))
