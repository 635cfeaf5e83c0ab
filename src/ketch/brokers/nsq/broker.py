"""NSQ: opening, publishing, subscribing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar, Self

from ...broker import PREFETCH, Broker, Capabilities, Site, Subscription
from ...errors import BrokerUnavailable
from .config import Config
from .envelope import MAX_BODY, wrap
from .link import Link
from .names import channel_name, nsq_name
from .publishing import Publishing
from .subscription import LONGEST_WAIT, NsqSubscription

if TYPE_CHECKING:
    from ...message import Message
    from ...url import Url


class NsqBroker(Broker):
    """Carries events over NSQ, at least once. A group is a channel of its topic."""

    name = "nsq"
    capabilities: ClassVar[Capabilities] = Capabilities(
        durable=False,  # nsqd loses what it has in memory when it is killed
        redelivers=True,
        counts=True,
        delays_redelivery=True,
        max_delay=LONGEST_WAIT,
        max_message_size=MAX_BODY,
    )

    def __init__(self, config: Config) -> None:
        self._config = config
        self._site: Site | None = None
        self._publishing: Publishing | None = None
        self._subscriptions: list[NsqSubscription] = []

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `nsq://host:port,host:port`; see `config.py` for the options."""
        return cls(Config.from_url(url))

    @property
    def location(self) -> str:
        """The nsqds, without the secret."""
        return self._config.location

    @property
    def trouble(self) -> str:
        """Whether the connection for publishing is lost just now."""
        return "" if self._publishing is None else self._publishing.trouble

    async def open(self, site: Site) -> None:
        """Connect to one of the nsqds."""
        if self._publishing is None:
            publishing = Publishing(self._config, site)
            await publishing.open()
            self._publishing = publishing
            self._site = site

    async def publish(self, message: Message, *, delay: float = 0.0) -> None:
        """Send the event, together with others of its topic, and wait for nsqd's answer."""
        if self._publishing is None:
            raise self._not_open()
        await self._publishing.publish(nsq_name(message.topic), wrap(message), delay)

    async def subscribe(
        self,
        topic: str,
        *,
        group: str | None,
        prefetch: int = PREFETCH,
        since: float | None = None,  # noqa: ARG002 - it declares no replay
    ) -> Subscription:
        """Create the channel if there is none, and begin to take."""
        if self._site is None:
            raise self._not_open()
        subscription = NsqSubscription(
            self._config,
            self._site,
            topic=topic,
            nsq_topic=nsq_name(topic),
            channel=channel_name(group),
            prefetch=prefetch,
            gone=self._forget,
        )
        self._subscriptions.append(subscription)
        try:
            await subscription.start()
        except BaseException:
            await subscription.close()
            raise
        return subscription

    async def declare(self, topic: str, *, group: str) -> None:
        """Create the group's channel at every nsqd."""
        site = self._site
        if site is None:
            raise self._not_open()
        names = {"topic": nsq_name(topic), "channel": channel_name(group)}
        links = [
            Link(self._config, site, address, ready=0, take=_nothing, **names) for address in self._config.addresses
        ]
        try:
            for failure in await asyncio.gather(*(link.start() for link in links)):
                if failure is not None:
                    raise failure
        finally:
            await asyncio.gather(*(link.stop() for link in links))
            await asyncio.gather(*(link.close() for link in links))

    def _forget(self, subscription: NsqSubscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    async def close(self) -> None:
        """Send what was published, close what is subscribed, disconnect."""
        publishing, self._publishing, self._site = self._publishing, None, None
        if publishing is not None:
            await publishing.close()
            await asyncio.gather(*(subscription.close() for subscription in list(self._subscriptions)))

    def _not_open(self) -> BrokerUnavailable:
        return BrokerUnavailable("nsq: the broker isn't open")


def _nothing(link: Link, messages: object) -> None:
    """Take nothing: a link that is never ready gets nothing."""
