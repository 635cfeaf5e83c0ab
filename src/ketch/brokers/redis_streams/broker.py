"""Redis Streams: connecting, publishing, subscribing."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, ClassVar, Self
from uuid import uuid4

from hiredis import ReplyError

from ...broker import PREFETCH, Broker, Capabilities, Site, Subscription
from ...errors import BrokerError, BrokerUnavailable, ConfigurationError, MessageTooLarge, SubscriptionRefused
from ...resp.config import OPTIONS, Config, seconds
from ...resp.connection import pack
from ...resp.link import Link
from ...resp.refusal import refusal
from . import names
from .alone import Alone
from .entry import fields
from .member import Member
from .places import make_group
from .scheduling import MAX_DELAY, MAX_HEADERS, SCHEDULE
from .trimming import Trimming

if TYPE_CHECKING:
    from ...message import Message
    from ...url import Url
    from .taking import Taking

log = logging.getLogger("ketch.broker")

_MAX_BODY = 64 * 1024 * 1024


class RedisStreamsBroker(Broker):
    """Carries events through Redis Streams, at least once. A topic is a stream, a group one of its consumer groups.

    Args:
        config: the server.
        claim_after: seconds of silence after which a member is dead and others get what it held.
        keep: seconds that events stay in the stream after all groups have settled them.
    """

    name = "redis-streams"
    capabilities: ClassVar[Capabilities] = Capabilities(
        durable=True,
        redelivers=True,
        ordered=True,
        counts=True,
        delays_redelivery=True,
        replay=True,
        max_delay=MAX_DELAY,
        max_message_size=_MAX_BODY,
    )

    def __init__(self, config: Config, *, claim_after: float = 30.0, keep: float = 600.0) -> None:
        self._config = config
        self._claim_after = claim_after
        self._keep = keep
        self._link: Link | None = None
        self._trimming: Trimming | None = None
        self._subscriptions: set[Subscription] = set()
        self._name = ""
        self._numbers = itertools.count(1)

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `redis-streams://host:port?claim_after=30&keep=600`; see `resp/config.py` for more options."""
        url.only(*OPTIONS, "claim_after", "keep")
        claim_after = seconds(url, "claim_after", 30.0)
        if claim_after < 1:
            raise ConfigurationError(f"redis-streams: claim_after must be 1 second at least, not {claim_after:g}")
        return cls(Config.from_url(url), claim_after=claim_after, keep=seconds(url, "keep", 600.0))

    @property
    def location(self) -> str:
        """The server."""
        return self._config.location

    @property
    def trouble(self) -> str:
        """Whether the connection is lost just now."""
        return "" if self._link is None else self._link.trouble

    async def open(self, site: Site) -> None:
        """Connect; each subscription adds a connection of its own."""
        if self._link is not None:
            return
        # Unlike any other's, also of an earlier life of this very instance.
        self._name = f"{site.service}/{site.instance_id}/{uuid4().hex[:8]}"
        link = Link(self._config, f"ketch/{self._name}")
        await link.open()
        self._link = link
        self._trimming = Trimming(link, self._keep)
        self._trimming.start()

    async def publish(self, message: Message, *, delay: float = 0.0) -> None:
        """Add the event to its stream; at return the server has it, on disk as far as it is told to write there."""
        link = self._opened()
        topic = message.topic
        if len(message.body) > _MAX_BODY:
            raise MessageTooLarge(f"{len(message.body)} bytes are over redis-streams' limit of {_MAX_BODY}")
        packed = self._later(message, delay) if delay > 0 else pack(("XADD", topic, "*", *fields(message)))
        connection = await link.up()
        try:
            await connection.send(packed)
        except ReplyError as error:
            raise refusal(self.location, f"can't publish to {topic}", error) from error
        if self._trimming is not None:
            self._trimming.published(topic)

    def _later(self, message: Message, delay: float) -> bytes:
        if len(message.headers) > MAX_HEADERS:
            raise BrokerError(f"redis-streams: an event for later may have {MAX_HEADERS} headers at most")
        unique = f"{self._name}/{next(self._numbers)}"
        key = names.scheduled(message.topic)
        return pack(("EVAL", SCHEDULE, 1, key, round(delay * 1000), unique, *fields(message)))

    async def subscribe(
        self, topic: str, *, group: str | None, prefetch: int = PREFETCH, since: float | None = None
    ) -> Subscription:
        """Subscribe; a new group begins with what is published from now on, or since a time."""
        subscription = self._subscription(topic, group, prefetch)
        try:
            await subscription.open(since)
        except ReplyError as error:
            raise self._refused(topic, error) from error
        subscription.left = self._subscriptions.discard
        self._subscriptions.add(subscription)
        if self._trimming is not None:
            self._trimming.add(topic)
        return subscription

    def _subscription(self, topic: str, group: str | None, prefetch: int) -> Taking:
        name = f"{self._name}/{next(self._numbers)}"
        taking = (self._config, f"ketch/{name}", self._opened(), topic, prefetch)
        if group is None:
            return Alone(*taking)
        return Member(*taking, group=group, consumer=name, claim_after=self._claim_after)

    def _refused(self, topic: str, error: ReplyError) -> BrokerError:
        reason = refusal(self.location, f"can't subscribe to {topic}", error)
        return reason if isinstance(reason, BrokerUnavailable) else SubscriptionRefused(str(reason))

    async def declare(self, topic: str, *, group: str) -> None:
        """Make a group exist."""
        connection = await self._opened().up()
        try:
            await make_group(connection, topic, group, "$")
        except ReplyError as error:
            raise self._refused(topic, error) from error

    async def close(self) -> None:
        """Close the subscriptions, have the server confirm what was published, disconnect."""
        link, self._link = self._link, None
        trimming, self._trimming = self._trimming, None
        if link is None or trimming is None:
            return
        await trimming.close()
        await asyncio.gather(*(subscription.close() for subscription in list(self._subscriptions)))
        if link.connection is not None:
            try:
                await link.connection.request("PING")
            except (BrokerUnavailable, ReplyError) as error:
                log.warning("redis-streams: closed before %s had everything: %s", self.location, error)
        await link.close()

    def _opened(self) -> Link:
        if self._link is None:
            raise BrokerUnavailable("redis-streams: the broker isn't open")
        return self._link
