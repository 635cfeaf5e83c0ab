"""Topics made, and where new groups begin."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    CommitFailedError,
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
)
from aiokafka.structs import TopicPartition

from ...errors import BrokerError, BrokerUnavailable
from .leaving import leave

if TYPE_CHECKING:
    from .config import Config

#: Topics that are remembered as there.
_KNOWN: Final = 4096

_FORBIDDEN: Final = (TopicAuthorizationFailedError.errno, ClusterAuthorizationFailedError.errno)


class Topics:
    """Sees to it that topics are there, and that groups begin where they should."""

    def __init__(self, config: Config, driver: dict[str, Any]) -> None:
        self._config = config
        self._driver = driver
        self._admin: AIOKafkaAdminClient | None = None
        self._known: set[str] = set()
        self._making = asyncio.Lock()

    def forget(self) -> None:
        """Look again: the server may have come back without them."""
        self._known.clear()

    async def open(self) -> None:
        """Connect."""
        self._admin = AIOKafkaAdminClient(**self._driver)
        await self._admin.start()

    async def close(self) -> None:
        """Disconnect."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()

    def known(self, name: str) -> bool:
        """Tell whether a topic was there when somebody asked last."""
        return name in self._known

    async def ensure(self, name: str) -> None:
        """Make a topic, by its name at Kafka, unless it is there.

        Raises:
            BrokerUnavailable: the server doesn't answer.
            BrokerError: it refuses.
        """
        if name in self._known:
            return
        if self._admin is None:
            raise BrokerUnavailable("kafka: the broker isn't open")
        try:
            async with asyncio.timeout(self._config.timeout), self._making:
                if name not in self._known:
                    await self._make(self._admin, name)
        except (KafkaError, TimeoutError, OSError) as error:
            why = str(error) or "no answer"
            raise BrokerUnavailable(f"{self._config.location}: can't make {name}: {why}") from error
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known.add(name)

    async def _make(self, admin: AIOKafkaAdminClient, name: str) -> None:
        answer = await admin.create_topics([NewTopic(name, self._config.partitions, self._config.replication)])
        for _, code, *why in answer.topic_errors:
            if code in (0, TopicAlreadyExistsError.errno):
                continue
            if code in _FORBIDDEN and await self._exists(admin, name):
                continue  # who may not make topics may still use those that others made
            reason = " ".join(str(part) for part in why if part) or "no reason given"
            raise BrokerError(f"{self._config.location}: topic {name} can't be made: error {code}, {reason}")

    async def _exists(self, admin: AIOKafkaAdminClient, name: str) -> bool:
        return any(topic["error_code"] == 0 for topic in await admin.describe_topics([name]))

    async def begin(self, name: str, group: str, since: float | None) -> None:
        """Commit where a group begins that has no offsets yet: now, or in the past.

        Partitions that a group has no offset of, while it has of others, were added later and begin at their beginning.

        Raises:
            KafkaError, TimeoutError, OSError: it can't be done.
        """
        consumer = AIOKafkaConsumer(group_id=group, enable_auto_commit=False, **self._driver)
        try:
            async with asyncio.timeout(self._config.timeout):
                await consumer.start()
                partitions = await self.partitions(consumer, name)
                consumer.assign(partitions)
                # First where it would begin, then whether it is new: whoever made it in between has been earlier.
                offsets = await self.offsets(consumer, partitions, since)
                if not await self._begun(consumer, partitions):
                    await self._commit(consumer, offsets)
        finally:
            await leave(consumer, name)

    async def _begun(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> bool:
        for partition in partitions:
            if await consumer.committed(partition) is not None:
                return True
        return False

    async def _commit(self, consumer: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
        try:
            await consumer.commit(offsets)
        except CommitFailedError:
            if not await self._begun(consumer, list(offsets)):
                raise  # else another member was quicker, and has joined

    async def partitions(self, consumer: AIOKafkaConsumer, name: str) -> list[TopicPartition]:
        """Return a topic's partitions, as soon as the cluster tells of them."""
        while True:
            numbers = consumer.partitions_for_topic(name)
            if numbers:
                return [TopicPartition(name, number) for number in sorted(numbers)]
            await consumer._client.force_metadata_update()  # noqa: SLF001 - there is no public way to ask now
            consumer._client.add_topic(name)  # noqa: SLF001
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
