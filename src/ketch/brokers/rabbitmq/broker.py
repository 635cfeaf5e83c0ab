"""RabbitMQ: connecting, publishing, subscribing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar, Final, Self

from pamqp import commands
from pamqp.exceptions import AMQPError

from ...broker import PREFETCH, Broker, Capabilities, Site, Subscription
from ...errors import BrokerError, BrokerUnavailable, MessageTooLarge, SubscriptionRefused
from . import topology
from .channel import Channel
from .config import Config
from .confirming import Outgoing
from .consumption import Source
from .content import encode
from .delays import Delays
from .link import Link, refused, why
from .names import LONGEST, binding_key
from .publisher import Publisher
from .subscription import RabbitMQSubscription

if TYPE_CHECKING:
    from ...message import Message
    from ...url import Url

#: Bytes of a body: what RabbitMQ 4 takes unless it is set to more.
_MAX_BODY: Final = 16 * 1024 * 1024

#: Seconds of the longest delay: RabbitMQ counts milliseconds in 32 bits.
_MAX_DELAY: Final = 24 * 86_400.0


class RabbitMQBroker(Broker):
    """Carries events over RabbitMQ, at least once. A group is a quorum queue, bound to one topic exchange.

    What is published has a connection of its own: a server that is short of memory stops reading from those that
    publish, and what is settled has to reach it then more than ever.
    """

    name = "rabbitmq"
    capabilities: ClassVar[Capabilities] = Capabilities(
        durable=True,
        redelivers=True,
        ordered=True,
        counts=True,
        delays_redelivery=True,
        max_delay=_MAX_DELAY,
        wildcards=True,
        max_message_size=_MAX_BODY,
    )

    def __init__(self, config: Config) -> None:
        self._config = config
        self._open = False
        self._service = ""
        self._subscriptions: list[RabbitMQSubscription] = []

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `rabbitmq://host:port/vhost`; see `config.py` for the options."""
        return cls(Config.from_url(url))

    @property
    def location(self) -> str:
        """The servers, without credentials."""
        return self._config.location

    @property
    def trouble(self) -> str:
        """Whether a connection is lost, or the server takes nothing, just now."""
        if not self._open:
            return ""
        return self._out.trouble or self._in.trouble or self._publisher.trouble

    async def open(self, site: Site) -> None:
        """Connect twice: to publish and to subscribe."""
        if self._open:
            return
        config = self._config
        self._service = site.service
        self._out, self._in = Link(config, f"{site.service}: publishing"), Link(config, f"{site.service}: subscribing")
        self._publisher = Publisher(config, self._out, topology.exchange(config.exchange))
        self._delays = Delays(config, self._out, self._publisher)
        try:
            await self._out.open()
            await self._publisher.open()
            await self._in.open()
        except BaseException:
            await self._disconnect()
            raise
        self._open = True

    async def publish(self, message: Message, *, delay: float = 0.0) -> None:
        """Publish, and return when the server has confirmed that its queues have it."""
        if not self._open:
            raise BrokerUnavailable("rabbitmq: the broker isn't open")
        if len(message.body) > _MAX_BODY:
            raise MessageTooLarge(f"{len(message.body)} bytes are over rabbitmq's limit of {_MAX_BODY}")
        if delay > 0:
            await self._delays.publish(message, delay)
            return
        properties = encode(message.headers)
        await self._publisher.publish(Outgoing(self._config.exchange, message.topic, properties, message.body))

    async def subscribe(
        self,
        topic: str,
        *,
        group: str | None,
        prefetch: int = PREFETCH,
        since: float | None = None,  # noqa: ARG002 - it declares no replay
    ) -> Subscription:
        """Declare the queue and begin to take from it."""
        source = self._source(topic, group)
        subscription = RabbitMQSubscription(
            self._config, self._in, self._delays, source, prefetch, self._subscriptions.remove
        )
        try:
            await subscription.open()
        except (AMQPError, OSError, TimeoutError) as error:
            raise self._refusal(topic, error) from error
        self._subscriptions.append(subscription)
        return subscription

    async def declare(self, topic: str, *, group: str) -> None:
        """Declare a group's queue."""
        source = self._source(topic, group)
        timeout = self._config.timeout
        try:
            async with asyncio.timeout(timeout):
                connection = await self._in.connected()
            channel = connection.channel(Channel)
            await channel.call(commands.Channel.Open(), *source.frames, timeout=timeout)
            await channel.close(timeout)
        except (AMQPError, OSError, TimeoutError) as error:
            raise self._refusal(topic, error) from error

    def _source(self, topic: str, group: str | None) -> Source:
        if not self._open:
            raise BrokerUnavailable("rabbitmq: the broker isn't open")
        if len(binding_key(topic).encode()) > LONGEST:
            raise SubscriptionRefused(f"{self.location}: {topic[:60]!r}… is over {LONGEST} bytes")
        config = self._config
        if group is None:
            queue, frames = topology.alone_queue(config.exchange, self._service, topic)
        else:
            queue, frames = topology.group_queue(config.exchange, group, topic, config.delivery_limit)
        return Source(topic, queue, frames, alone=group is None)

    def _refusal(self, topic: str, error: Exception) -> BrokerError:
        if not refused(error):
            return BrokerUnavailable(f"{self.location}: can't subscribe to {topic}: {why(error)}")
        advice = ""
        if "inequivalent" in str(error):
            advice = "; it was declared with other settings: delete it once it is empty, or use another ?exchange="
        return SubscriptionRefused(f"{self.location}: can't subscribe to {topic}: {error}{advice}")

    async def close(self) -> None:
        """Close the subscriptions, wait for what is to be confirmed, disconnect."""
        if not self._open:
            return
        self._open = False
        await asyncio.gather(*(subscription.close() for subscription in list(self._subscriptions)))
        await self._disconnect()

    async def _disconnect(self) -> None:
        await self._publisher.close()
        await asyncio.gather(self._out.close(), self._in.close())
