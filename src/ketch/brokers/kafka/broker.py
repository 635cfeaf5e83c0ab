"""Kafka: connecting, publishing, subscribing."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)

from ...broker import PREFETCH, Broker, Capabilities, Site, Subscription
from ...errors import BrokerError, BrokerUnavailable, SubscriptionRefused
from .config import Config
from .leaving import leave
from .names import group_id, topic_name
from .publishing import MAX_BODY, Publishing
from .subscription import KafkaSubscription
from .topics import Topics

if TYPE_CHECKING:
    from ...message import Message
    from ...url import Url

log = logging.getLogger("ketch.broker")

_FORBIDDEN: Final = (TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError)

#: Seconds between two looks whether the cluster answers, and to wait for partitions of a group.
_LOOK: Final = 1.0
_JOIN: Final = 15.0
_SHARE: Final = 3.0


class KafkaBroker(Broker):
    """Carries events through Kafka, at least once: a topic is a topic, a key chooses its partition.

    What `publish` returned from, all in-sync replicas have. A group's member gets partitions of its own.
    """

    name = "kafka"
    capabilities: ClassVar[Capabilities] = Capabilities(
        durable=True,
        redelivers=True,
        keyed=True,
        selective=False,
        delays_redelivery=True,
        replay=True,
        max_message_size=MAX_BODY,
    )

    def __init__(self, config: Config) -> None:
        self._config = config
        self._driver: dict[str, Any] = {}
        self._publishing: Publishing | None = None
        self._topics: Topics
        self._subscriptions: list[KafkaSubscription] = []
        self._trouble = ""
        self._watch: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `kafka://host:port,host:port`; see `config.py` for the options."""
        return cls(Config.from_url(url))

    @property
    def location(self) -> str:
        """The servers, without credentials."""
        return self._config.location

    @property
    def trouble(self) -> str:
        """Whether the cluster doesn't answer just now, or nobody looks any more."""
        if self._publishing is not None and self._watch is not None and self._watch.done():
            return "kafka: the task that watches the cluster has ended"
        return self._trouble

    async def open(self, site: Site) -> None:
        """Connect to the cluster."""
        if self._publishing is not None:
            return
        self._driver = {
            "bootstrap_servers": list(self._config.servers),
            "client_id": site.service,
            "request_timeout_ms": int(self._config.timeout * 1000),
            "retry_backoff_ms": 100,
            **self._config.login,
        }
        topics = Topics(self._config, self._driver)
        publishing = Publishing(self._config, self._driver, topics)
        try:
            async with asyncio.timeout(self._config.connect_timeout):
                await publishing.open()
                await topics.open()
        except BaseException as error:
            await publishing.close()
            await topics.close()
            if isinstance(error, (KafkaError, TimeoutError, OSError)):
                raise self._refused(error) from error
            raise
        self._topics, self._publishing = topics, publishing
        self._trouble = ""
        self._watch = asyncio.create_task(self._look(publishing), name="ketch watching kafka")

    def _refused(self, error: Exception) -> BrokerError:
        if isinstance(error, (AuthenticationFailedError, UnsupportedSaslMechanismError)):
            return BrokerError(f"{self.location}: the cluster refuses our credentials")
        return BrokerUnavailable(f"{self.location}: {str(error) or 'no answer'}; is it running?")

    async def _look(self, publishing: Publishing) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            alive = await publishing.alive()
            if not alive and not self._trouble:
                self._trouble = f"the cluster at {self.location} doesn't answer"
                log.warning("kafka: lost %s, trying on", self.location)
                for subscription in self._open_subscriptions():
                    subscription.lost()
            elif alive and self._trouble and await self._declared_again():
                self._trouble = ""
                log.warning("kafka: %s is back; subscriptions go on", self.location)

    async def _declared_again(self) -> bool:
        """Make what is subscribed to, should the cluster have come back empty; tell whether that worked."""
        self._topics.forget()
        for subscription in self._open_subscriptions():
            try:
                await self._topics.ensure(subscription.name)
            except BrokerUnavailable:
                return False
            except BrokerError as error:
                log.warning("kafka: %s", error)
            await subscription.back()
        return True

    def _open_subscriptions(self) -> list[KafkaSubscription]:
        self._subscriptions = [subscription for subscription in self._subscriptions if not subscription.closed]
        return self._subscriptions

    async def publish(self, message: Message, *, delay: float = 0.0) -> None:  # noqa: ARG002 - it declares no delay
        """Publish; at return all in-sync replicas have the event."""
        await self._opened().publish(message)

    async def subscribe(
        self, topic: str, *, group: str | None, prefetch: int = PREFETCH, since: float | None = None
    ) -> Subscription:
        """Join the group; a new group begins at its offsets of now.

        The group's share of partitions is waited for, though not for long: other members may have to finish first.
        """
        self._opened()
        name = topic_name(topic)
        await self._topics.ensure(name)
        if group is not None:
            await self._begin(topic, group, since)
        consumer = self._new_consumer(None if group is None else group_id(group, topic))
        subscription = KafkaSubscription(consumer, topic, name, prefetch, group=group)
        try:
            await self._join(consumer, subscription, group, since)
        except BaseException as error:
            await leave(consumer, topic)
            if isinstance(error, (KafkaError, TimeoutError, OSError)):
                raise self._not_subscribed(topic, error) from error
            raise
        subscription.start()
        self._open_subscriptions().append(subscription)
        return subscription

    def _new_consumer(self, group: str | None) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
            heartbeat_interval_ms=500,
            session_timeout_ms=10_000,
            rebalance_timeout_ms=60_000,
            partition_assignment_strategy=(StickyPartitionAssignor,),
            max_poll_interval_ms=24 * 3600 * 1000,  # how long a handler takes is the consumer's business
            metadata_max_age_ms=10_000,
            # A member that joins waits as long as the others have something in hand.
            **{**self._driver, "request_timeout_ms": 70_000},
        )

    async def _begin(self, topic: str, group: str, since: float | None) -> None:
        try:
            await self._topics.begin(topic_name(topic), group_id(group, topic), since)
        except (KafkaError, TimeoutError, OSError) as error:
            raise self._not_subscribed(topic, error) from error

    def _not_subscribed(self, topic: str, error: Exception) -> BrokerError:
        kind = SubscriptionRefused if isinstance(error, _FORBIDDEN) else BrokerUnavailable
        return kind(f"{self.location}: can't subscribe to {topic}: {str(error) or 'no answer'}")

    async def _join(
        self, consumer: AIOKafkaConsumer, subscription: KafkaSubscription, group: str | None, since: float | None
    ) -> None:
        async with asyncio.timeout(_JOIN):
            await consumer.start()
            if group is not None:
                consumer.subscribe([subscription.name], listener=subscription.listener)
                await subscription.assigned(_SHARE)
                return
            partitions = await self._topics.partitions(consumer, subscription.name)
            consumer.assign(partitions)
            for partition, offset in (await self._topics.offsets(consumer, partitions, since)).items():
                consumer.seek(partition, offset)
            subscription.given(partitions)

    async def declare(self, topic: str, *, group: str) -> None:
        """Make topic and group, which begins at the offsets of now."""
        self._opened()
        await self._topics.ensure(topic_name(topic))
        await self._begin(topic, group, None)

    async def close(self) -> None:
        """Leave the groups, send what was published, disconnect."""
        publishing, self._publishing = self._publishing, None
        if publishing is None:
            return
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait({self._watch})
        await asyncio.gather(*(subscription.close() for subscription in self._open_subscriptions()))
        self._subscriptions.clear()
        await publishing.close()
        await self._topics.close()

    def _opened(self) -> Publishing:
        if self._publishing is None:
            raise BrokerUnavailable("kafka: the broker isn't open")
        return self._publishing
