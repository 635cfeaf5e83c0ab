"""Kafka: connecting, publishing, subscribing."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)

from ...broker import PREFETCH, Broker, Capabilities, Site, Subscription
from ...errors import BrokerError, BrokerUnavailable, MessageTooLarge, SubscriptionRefused
from ...message import KEY
from .config import Config
from .leaving import leave
from .names import Names, group_id, topic_name
from .subscription import KafkaSubscription
from .topics import Topics
from .wire import Writer

if TYPE_CHECKING:
    from ...message import Message
    from ...url import Url

log = logging.getLogger("ketch.broker")

#: Largest body; a broker takes records of 1 MiB by default, headers included.
_MAX_BODY: Final = 1_000_000
_MAX_REQUEST: Final = 1_048_576

#: Milliseconds that the producer gathers records for one request, and bytes of a batch.
_LINGER: Final = 1
_BATCH: Final = 256 * 1024

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
        max_message_size=_MAX_BODY,
    )

    def __init__(self, config: Config) -> None:
        self._config = config
        self._driver: dict[str, Any] = {}
        self._producer: AIOKafkaProducer | None = None
        self._topics: Topics
        self._writer = Writer()
        self._names = Names()
        self._idempotent = True
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
        topics = Topics(self._config, self._driver)
        producer = None
        try:
            async with asyncio.timeout(self._config.connect_timeout):
                producer = await self._start_producer()
                await topics.open()
        except BaseException as error:
            if producer is not None:
                await producer.stop()
            await topics.close()
            if isinstance(error, (KafkaError, TimeoutError, OSError)):
                raise self._refused(error) from error
            raise
        self._topics, self._producer = topics, producer
        self._trouble = ""
        self._watch = asyncio.create_task(self._look(), name="ketch watching kafka")

    async def _start_producer(self) -> AIOKafkaProducer:
        """Start one that sends nothing twice, or else, where the cluster has no such thing for us, one that may."""
        if self._idempotent:
            try:
                return await self._started(idempotent=True)
            except (AuthenticationFailedError, KafkaConnectionError, UnsupportedSaslMechanismError):
                raise
            except KafkaError as error:
                self._idempotent = False
                log.warning("kafka: %s has no idempotent producer for us: %s", self.location, error)
        return await self._started(idempotent=False)

    async def _started(self, *, idempotent: bool) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            acks="all",
            enable_idempotence=idempotent,
            linger_ms=_LINGER,
            max_batch_size=_BATCH,
            max_request_size=_MAX_REQUEST,
            compression_type=self._config.compression,
            **self._driver,
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return producer

    def _refused(self, error: Exception) -> BrokerError:
        if isinstance(error, (AuthenticationFailedError, UnsupportedSaslMechanismError)):
            return BrokerError(f"{self.location}: the cluster refuses our credentials")
        return BrokerUnavailable(f"{self.location}: {str(error) or 'no answer'}; is it running?")

    async def _look(self) -> None:
        """Ask for a sign of life: the driver tries on in silence."""
        while True:
            await asyncio.sleep(_LOOK)
            alive = await self._alive()
            if not alive and not self._trouble:
                self._trouble = f"the cluster at {self.location} doesn't answer"
                log.warning("kafka: lost %s, trying on", self.location)
                for subscription in self._open_subscriptions():
                    subscription.lost()
            elif alive and self._trouble and await self._declared_again():
                self._trouble = ""
                log.warning("kafka: %s is back; subscriptions go on", self.location)

    async def _alive(self) -> bool:
        producer = self._open_producer()
        try:
            async with asyncio.timeout(self._config.timeout):
                if producer._sender.sender_task.done():  # noqa: SLF001 - it would take events and never send them
                    await self._replace(producer)
                return bool(await self._open_producer().client.force_metadata_update())
        except (KafkaError, TimeoutError, OSError):
            return False

    async def _replace(self, dead: AIOKafkaProducer) -> None:
        """Publish through another producer: the driver's own has come to an unexpected end."""
        log.error("kafka: the driver's producer has ended; publishing through a new one")
        self._producer = await self._start_producer()
        try:
            await dead.stop()
        except KafkaError as error:
            log.warning("kafka: the producer ended because of: %s", error)

    async def _declared_again(self) -> bool:
        """Make what is subscribed to, should the cluster have come back empty; tell whether that worked."""
        self._topics.forget()
        try:
            for subscription in self._open_subscriptions():
                await self._topics.ensure(subscription.name)
                await subscription.back()
        except BrokerUnavailable:
            return False
        except BrokerError as error:
            log.warning("kafka: %s", error)
        return True

    def _open_subscriptions(self) -> list[KafkaSubscription]:
        self._subscriptions = [subscription for subscription in self._subscriptions if not subscription.closed]
        return self._subscriptions

    async def publish(self, message: Message, *, delay: float = 0.0) -> None:  # noqa: ARG002 - it declares no delay
        """Hand the event to the producer, which sends it with others; at return the cluster has it."""
        producer = self._open_producer()
        if len(message.body) > _MAX_BODY:
            raise MessageTooLarge(f"{len(message.body)} bytes are over Kafka's limit of {_MAX_BODY}")
        name = self._names[message.topic]
        key = message.headers.get(KEY)
        headers = self._writer.headers(message.headers)
        try:
            async with asyncio.timeout(self._config.timeout):
                if not self._topics.known(name):
                    await self._topics.ensure(name)
                sent = await producer.send(name, message.body, key=key.encode() if key else None, headers=headers)
                await sent
        except TimeoutError as error:
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
        self._open_producer()
        await self._topics.ensure(topic_name(topic))
        await self._begin(topic, group, None)

    async def close(self) -> None:
        """Leave the groups, send what was published, disconnect."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait({self._watch})
        await asyncio.gather(*(subscription.close() for subscription in self._open_subscriptions()))
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
