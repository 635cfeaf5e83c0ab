"""Topics made, and where new groups begin."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError
from aiokafka.structs import TopicPartition

from ...errors import BrokerError, BrokerUnavailable

if TYPE_CHECKING:
    from .config import Config

#: Names that Kafka takes (org.apache.kafka.common.internals.Topic).
_LEGAL: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")

#: Topics that are remembered as there.
_KNOWN: Final = 4096

_TOPIC_EXISTS: Final = TopicAlreadyExistsError.errno


class Topics:
    """Sees to it that topics are there, and that groups begin where they should."""

    def __init__(self, config: Config, driver: dict[str, Any]) -> None:
        self._config = config
        self._driver = driver
        self._admin: AIOKafkaAdminClient | None = None
        self.known: set[str] = set()
        self._making = asyncio.Lock()

    def forget(self) -> None:
        """Look again: the server may have come back without them."""
        self.known.clear()

    async def open(self) -> None:
        """Connect."""
        self._admin = AIOKafkaAdminClient(**self._driver)
        await self._admin.start()

    async def close(self) -> None:
        """Disconnect."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()

    def check(self, topic: str) -> None:
        """Check a topic's name.

        Raises:
            BrokerError: Kafka has no such names.
        """
        if _LEGAL.fullmatch(topic) is None or topic in (".", ".."):
            raise BrokerError(
                f"{self._config.location}: {topic!r} is no topic of Kafka's: letters, digits, '.', '_', '-'"
            )

    async def ensure(self, topic: str) -> None:
        """Make a topic unless it is there.

        Raises:
            BrokerUnavailable: the server doesn't answer.
            BrokerError: it refuses.
        """
        if topic in self.known:
            return
        self.check(topic)
        if self._admin is None:
            raise BrokerUnavailable("kafka: the broker isn't open")
        new = NewTopic(topic, self._config.partitions, self._config.replication)
        try:
            async with self._making, asyncio.timeout(self._config.timeout):
                answer = await self._admin.create_topics([new])
        except (KafkaError, TimeoutError, OSError) as error:
            raise BrokerUnavailable(f"{self._config.location}: can't make {topic}: {error}") from error
        for name, code, *why in answer.topic_errors:
            if code not in (0, _TOPIC_EXISTS):
                raise BrokerError(
                    f"{self._config.location}: {name} can't be made: error {code} {' '.join(map(str, why))}"
                )
        if len(self.known) < _KNOWN:
            self.known.add(topic)

    async def begin(self, topic: str, group: str, since: float | None) -> None:
        """Commit where a group begins that has no offsets yet: now, or in the past.

        Raises:
            BrokerUnavailable: the server doesn't answer.
        """
        consumer = AIOKafkaConsumer(group_id=group, enable_auto_commit=False, **self._driver)
        try:
            async with asyncio.timeout(self._config.timeout):
                await consumer.start()
                partitions = await self.partitions(consumer, topic)
                consumer.assign(partitions)
                new = [partition for partition in partitions if await consumer.committed(partition) is None]
                if new:
                    await consumer.commit(await self.offsets(consumer, new, since))
        except (KafkaError, TimeoutError, OSError) as error:
            raise BrokerUnavailable(f"{self._config.location}: group {group} of {topic}: {error}") from error
        finally:
            await consumer.stop()

    async def partitions(self, consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
        """Return a topic's partitions, as soon as the cluster tells of them."""
        while True:
            numbers = consumer.partitions_for_topic(topic)
            if numbers:
                return [TopicPartition(topic, number) for number in sorted(numbers)]
            await consumer._client.force_metadata_update()  # noqa: SLF001 - there is no public way to ask now
            consumer._client.add_topic(topic)  # noqa: SLF001
            await asyncio.sleep(0.05)

    async def offsets(
        self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition], since: float | None
    ) -> dict[TopicPartition, int]:
        """Return where to begin."""
        ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        if since is None:
            return ends
        if since <= 0:
            return dict(await consumer.beginning_offsets(partitions))
        found = await consumer.offsets_for_times(dict.fromkeys(partitions, int(since * 1000)))
        return {partition: ends[partition] if at is None else at.offset for partition, at in found.items()}


def group_id(group: str, topic: str) -> str:
    """Return the Kafka group of a group's subscription to a topic.

    One for each topic: in a group of Kafka's all members hear of every change of any, whatever they subscribe to.
    """
    return f"{group}/{topic}"  # no topic has a slash, so no two pairs share a name
