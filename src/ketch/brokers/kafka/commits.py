"""Commits: tells the group how far its member has come."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer
    from aiokafka.structs import TopicPartition

    from .hand import Hand

log = logging.getLogger("ketch.broker")

#: Seconds for a commit to be answered; the driver alone would wait without end.
_ANSWER: Final = 5.0


class Commits:
    """Commits what of a hand is settled without a gap.

    Attributes:
        trouble: why that fails just now, "" where it doesn't.
    """

    def __init__(self, consumer: AIOKafkaConsumer, topic: str, hand: Hand) -> None:
        self._consumer = consumer
        self._topic = topic
        self._hand = hand
        self._committing = asyncio.Lock()
        self.trouble = ""

    async def commit(self) -> None:
        """Commit; what the group doesn't take is tried again next time, or comes again elsewhere."""
        async with self._committing:
            offsets = self._hand.to_commit
            if offsets and await self._taken(offsets):
                self._hand.committed(offsets)

    async def _taken(self, offsets: dict[TopicPartition, int]) -> bool:
        try:
            async with asyncio.timeout(_ANSWER):
                await self._consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError):
            return False  # a rebalance took them; whoever has them now gets what wasn't committed
        except (KafkaError, OSError, TimeoutError) as error:
            if not self.trouble:
                why = str(error) or "no answer"
                log.warning("kafka: offsets of %s can't be committed, trying on: %s", self._topic, why)
            self.trouble = f"offsets of {self._topic} can't be committed"
            return False
        self.trouble = ""
        return True
