"""Publishing: one producer, replaced when the driver's has come to an end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    AuthenticationFailedError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    UnsupportedSaslMechanismError,
)

from ...errors import BrokerError, BrokerUnavailable, MessageTooLarge
from ...message import KEY
from .deadlines import Deadlines
from .names import Names
from .wire import Writer

if TYPE_CHECKING:
    from ...message import Message
    from .config import Config
    from .topics import Topics

log = logging.getLogger("ketch.broker")

#: Largest body; a broker takes records of 1 MiB by default, headers included.
MAX_BODY: Final = 1_000_000
_MAX_REQUEST: Final = 1_048_576

#: Bytes of a batch: what is published while a request is on its way goes with the next one.
_BATCH: Final = 256 * 1024


class Publishing:
    """Publishes events, many in one request."""

    def __init__(self, config: Config, driver: dict[str, Any], topics: Topics) -> None:
        self._config = config
        self._driver = driver
        self._topics = topics
        self._producer: AIOKafkaProducer | None = None
        self._writer = Writer()
        self._names = Names()
        self._deadlines = Deadlines(config.timeout)
        self._idempotent = True

    async def open(self) -> None:
        """Connect.

        Raises:
            KafkaError, OSError: it can't be done.
        """
        self._producer = await self._start()

    async def _start(self) -> AIOKafkaProducer:
        """Start one that sends nothing twice, or else, where the cluster has no such thing for us, one that may."""
        if self._idempotent:
            try:
                return await self._started(idempotent=True)
            except (AuthenticationFailedError, KafkaConnectionError, UnsupportedSaslMechanismError):
                raise
            except KafkaError as error:
                self._idempotent = False
                log.warning("kafka: %s has no idempotent producer for us: %s", self._config.location, error)
        return await self._started(idempotent=False)

    async def _started(self, *, idempotent: bool) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            acks="all",
            enable_idempotence=idempotent,
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

    async def alive(self) -> bool:
        """Tell whether the cluster answers; the driver tries on in silence where it doesn't."""
        if self._producer is None:
            return False
        try:
            async with asyncio.timeout(self._config.timeout):
                if self._producer._sender.sender_task.done():  # noqa: SLF001 - it would take events and send none
                    await self._replace(self._producer)
                return bool(await self._producer.client.force_metadata_update())
        except (KafkaError, TimeoutError, OSError):
            return False

    async def _replace(self, dead: AIOKafkaProducer) -> None:
        log.error("kafka: the driver's producer has ended; publishing through a new one")
        self._producer = await self._start()
        try:
            await dead.stop()
        except KafkaError as error:
            log.warning("kafka: the producer ended because of: %s", error)

    async def publish(self, message: Message) -> None:
        """Hand an event to the producer, which sends it with others; at return the cluster has it.

        Raises:
            BrokerUnavailable: it took too long.
            MessageTooLarge: over the limit.
            BrokerError: the cluster refuses it.
        """
        if self._producer is None:
            raise BrokerUnavailable("kafka: the broker isn't open")
        if len(message.body) > MAX_BODY:
            raise MessageTooLarge(f"{len(message.body)} bytes are over Kafka's limit of {MAX_BODY}")
        name = self._names[message.topic]
        key = message.headers.get(KEY)
        headers = self._writer.headers(message.headers)
        try:
            if not self._topics.known(name):
                await self._topics.ensure(name)
            # The driver bounds this by its request timeout, but not what it returns. A timer for each event would cost
            # more than all else that is ours.
            sent = await self._producer.send(name, message.body, key=key.encode() if key else None, headers=headers)
            await self._deadlines.watch(sent)
        except (KafkaError, TimeoutError, OSError) as error:
            raise self._not_published(message, error) from error

    def _not_published(self, message: Message, error: Exception) -> BrokerError:
        where = self._config.location
        if isinstance(error, MessageSizeTooLargeError):
            return MessageTooLarge(f"{where}: {error}")
        self._topics.forget()
        if isinstance(error, (TimeoutError, KafkaTimeoutError)):
            return BrokerUnavailable(
                f"{where}: publishing to {message.topic} took more than {self._config.timeout:g} s"
            )
        kind = BrokerUnavailable if getattr(error, "retriable", True) else BrokerError
        return kind(f"{where}: can't publish to {message.topic}: {error}")

    async def close(self) -> None:
        """Send what was published, disconnect."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            async with asyncio.timeout(self._config.timeout):
                await producer.stop()
        except (KafkaError, TimeoutError, OSError) as error:
            why = str(error) or "no answer"
            log.warning("kafka: closed before %s had everything: %s", self._config.location, why)
        self._deadlines.close()
