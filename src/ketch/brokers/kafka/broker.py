"""Kafka: connecting, publishing, subscribing."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import (
    AuthenticationFailedError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)

from ...broker import PREFETCH, Broker, Capabilities, Site, Subscription
from ...errors import BrokerError, BrokerUnavailable, MessageTooLarge, SubscriptionRefused
from ...message import KEY
from .config import Config
from .subscription import KafkaSubscription
from .topics import Topics, group_id
from .wire import Writer

if TYPE_CHECKING:
    from ...message import Message
    from ...url import Url

log = logging.getLogger("ketch.broker")

#: Largest body; a broker takes records of 1 MiB by default, headers included.
_MAX_BODY: Final = 1_000_000
_MAX_REQUEST: Final = 1_048_576

#: Bytes of a batch: what is published while a request is on its way goes with the next one.
_BATCH: Final = 256 * 1024

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
        max_message_size=_MAX_BODY,
    )

    def __init__(self, config: Config) -> None:
        self._config = config
        self._driver: dict[str, Any] = {}
        self._producer: AIOKafkaProducer | None = None
        self._topics: Topics
        self._writer = Writer()
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
        """Whether the cluster doesn't answer just now."""
        return self._trouble

    async def open(self, site: Site) -> None:
        """Connect to the cluster."""
        if self._producer is not None:
            return
        self._driver = {
            "bootstrap_servers": list(self._config.servers),
            "client_id": site.service,
            "request_timeout_ms": int(self._config.timeout * 1000),
            "retry_backoff_ms": 100,
            **self._config.login,
        }
        producer = AIOKafkaProducer(
            acks="all",
            enable_idempotence=False,
            max_batch_size=_BATCH,
            max_request_size=_MAX_REQUEST,
            **self._driver,
        )
        topics = Topics(self._config, self._driver)
        try:
            async with asyncio.timeout(self._config.connect_timeout):
                await producer.start()
                await topics.open()
        except (KafkaError, TimeoutError, OSError) as error:
            await producer.stop()
            await topics.close()
            raise self._refused(error) from error
        self._topics, self._producer = topics, producer
        self._trouble = ""
        self._watch = asyncio.create_task(self._look(producer), name="ketch watching kafka")

    def _refused(self, error: Exception) -> BrokerError:
        if isinstance(error, (AuthenticationFailedError, UnsupportedSaslMechanismError)):
            return BrokerError(f"{self.location}: the cluster refuses our credentials")
        return BrokerUnavailable(f"{self.location}: {str(error) or 'no answer'}; is it running?")

    async def _look(self, producer: AIOKafkaProducer) -> None:
        """Ask for a sign of life: the driver tries on in silence."""
        client = producer.client
        while True:
            await asyncio.sleep(_LOOK)
            try:
                async with asyncio.timeout(self._config.timeout):
                    alive = await client.force_metadata_update()
            except (KafkaError, TimeoutError, OSError):
                alive = False
            if not alive and not self._trouble:
                self._trouble = f"the cluster at {self.location} doesn't answer"
                log.warning("kafka: lost %s, trying on", self.location)
            elif alive and self._trouble:
                self._trouble = ""
                self._topics.forget()
                log.warning("kafka: %s is back; subscriptions go on", self.location)

    async def publish(self, message: Message, *, delay: float = 0.0) -> None:  # noqa: ARG002 - it declares no delay
        """Hand the event to the producer, which sends it with others; at return the cluster has it."""
        producer = self._open_producer()
        if len(message.body) > _MAX_BODY:
            raise MessageTooLarge(f"{len(message.body)} bytes are over Kafka's limit of {_MAX_BODY}")
        key = message.headers.get(KEY)
        headers = self._writer.headers(message.headers)
        try:
            if message.topic not in self._topics.known:
                async with asyncio.timeout(self._config.timeout):
                    await self._topics.ensure(message.topic)
            # The driver bounds this itself, by its request timeout: a timer of ours for each event would cost more
            # than all else that is ours.
            sent = await producer.send(
                message.topic, message.body, key=None if not key else key.encode(), headers=headers
            )
            await sent
        except (TimeoutError, KafkaTimeoutError) as error:
            self._topics.forget()
            raise BrokerUnavailable(
                f"{self.location}: publishing to {message.topic} took more than {self._config.timeout:g} s"
            ) from error
        except MessageSizeTooLargeError as error:
            raise MessageTooLarge(f"{self.location}: {error}") from error
        except (KafkaError, OSError) as error:
            self._topics.forget()
            kind = BrokerUnavailable if getattr(error, "retriable", True) else BrokerError
            raise kind(f"{self.location}: can't publish to {message.topic}: {error}") from error

    async def subscribe(
        self, topic: str, *, group: str | None, prefetch: int = PREFETCH, since: float | None = None
    ) -> Subscription:
        """Join the group; a new group begins at its offsets of now.

        The group's share of partitions is waited for, though not for long: other members may have to finish first.
        """
        self._open_producer()
        await self._topics.ensure(topic)
        if group is not None:
            await self._topics.begin(topic, group_id(group, topic), since)
        consumer = AIOKafkaConsumer(
            group_id=None if group is None else group_id(group, topic),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
            heartbeat_interval_ms=500,
            session_timeout_ms=10_000,
            rebalance_timeout_ms=60_000,
            partition_assignment_strategy=(StickyPartitionAssignor,),
            max_poll_interval_ms=24 * 3600 * 1000,  # how long a handler takes is the consumer's business
            metadata_max_age_ms=30_000,
            # A member that joins waits as long as the others have something in hand.
            **{**self._driver, "request_timeout_ms": 70_000},
        )
        subscription = KafkaSubscription(consumer, topic, prefetch, group=group)
        try:
            await self._join(consumer, subscription, group, since)
        except TopicAuthorizationFailedError as error:
            await consumer.stop()
            raise SubscriptionRefused(f"{self.location}: {topic}: {error}") from error
        except (KafkaError, TimeoutError, OSError) as error:
            await consumer.stop()
            raise BrokerUnavailable(f"{self.location}: can't subscribe to {topic}: {error}") from error
        subscription.start()
        self._subscriptions.append(subscription)
        return subscription

    async def _join(
        self, consumer: AIOKafkaConsumer, subscription: KafkaSubscription, group: str | None, since: float | None
    ) -> None:
        topic = subscription.topic
        async with asyncio.timeout(_JOIN):
            await consumer.start()
            if group is not None:
                consumer.subscribe([topic], listener=subscription.listener)
                await subscription.assigned(_SHARE)
                return
            partitions = await self._topics.partitions(consumer, topic)
            consumer.assign(partitions)
            for partition, offset in (await self._topics.offsets(consumer, partitions, since)).items():
                consumer.seek(partition, offset)
            subscription.given(partitions)

    async def declare(self, topic: str, *, group: str) -> None:
        """Make topic and group, which begins at the offsets of now."""
        self._open_producer()
        await self._topics.ensure(topic)
        await self._topics.begin(topic, group_id(group, topic), None)

    async def close(self) -> None:
        """Leave the groups, send what was published, disconnect."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait({self._watch})
        await asyncio.gather(*(subscription.close() for subscription in self._subscriptions))
        self._subscriptions.clear()
        try:
            async with asyncio.timeout(self._config.timeout):
                await producer.stop()
        except (KafkaError, TimeoutError, OSError) as error:
            log.warning("kafka: closed before %s had everything: %s", self.location, str(error) or "no answer")
        await self._topics.close()

    def _open_producer(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise BrokerUnavailable("kafka: the broker isn't open")
        return self._producer
