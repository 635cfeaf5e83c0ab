"""Hand: what one member has taken of its partitions, and what became of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from ...broker import Delivery, Outcome
from .later import Later
from .progress import Progress, progress_of
from .wire import read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aiokafka.structs import TopicPartition

log = logging.getLogger("ketch.broker")

#: Deliveries given back that wait, and offsets behind the first that is unsettled: more aren't taken meanwhile.
_WAITING: Final = 4096
_SPAN: Final = 50_000


class Hand:
    """One member's partitions, what it holds of them, and what was given back.

    Attributes:
        later: what was given back and isn't due yet.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._progress: dict[TopicPartition, Progress] = {}
        self.later = Later()

    def __len__(self) -> int:
        """Return how many deliveries are neither settled nor given back."""
        return sum(progress.in_hand for progress in self._progress.values())

    @property
    def partitions(self) -> Iterable[TopicPartition]:
        """This member's partitions."""
        return self._progress.keys()

    def holds(self, partitions: Iterable[TopicPartition]) -> bool:
        """Tell whether something of these is in hand."""
        return any(self._progress[partition].in_hand for partition in partitions if partition in self._progress)

    def room(self, limit: int) -> int:
        """Return how many more may be taken, where `limit` may be in hand."""
        span = sum(progress.span for progress in self._progress.values())
        return min(limit - len(self), _WAITING - len(self.later), _SPAN - span)

    def given(self, partitions: Iterable[TopicPartition]) -> None:
        """Take partitions on, keep those that were this member's before, and drop the others."""
        kept = {partition: self._progress.get(partition) or Progress() for partition in partitions}
        for partition, progress in self._progress.items():
            progress.current = partition in kept
            progress.begin_anew()
        self._progress = kept
        self._forget_old()

    def drop(self) -> None:
        """Drop all: settling it has no effect from now on."""
        self.given(())

    def take(self, found: Mapping[TopicPartition, list[Any]]) -> list[Delivery]:
        """Return the driver's records as deliveries, but for those that are known already."""
        batch: list[Delivery] = []
        for partition, records in found.items():
            progress = self._progress.get(partition)
            if progress is None:
                progress = self._progress[partition] = Progress()
            for record in records:
                if not progress.fits(record.offset, record.timestamp):
                    progress = self._replace(partition)
                if progress.take(record.offset, record.timestamp):
                    batch.append(Delivery(read(self._topic, record), 1, (record.offset, progress)))
        return batch

    def _replace(self, partition: TopicPartition) -> Progress:
        """Forget what was of a log that is no more."""
        log.warning("kafka: partition %d of %s begins anew; its log was lost", partition.partition, self._topic)
        self._progress[partition].current = False
        self._forget_old()
        progress = self._progress[partition] = Progress()
        return progress

    def _forget_old(self) -> None:
        self.later.keep(lambda delivery: progress_of(delivery).current)

    def due(self, most: int) -> list[Delivery]:
        """Return what was given back and is due."""
        due = self.later.due(most) if most > 0 else []
        for delivery in due:
            progress_of(delivery).waiting -= 1
        return due

    def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Note what became of deliveries; of partitions that are another member's now, who gets them again, nothing."""
        for delivery, outcome in settled:
            raw: Any = delivery.raw
            offset, progress = raw
            if not progress.current:
                continue
            if outcome is Outcome.DONE:
                progress.settle(offset)
            else:
                progress.waiting += 1
                self.later.add(Delivery(delivery.message, delivery.attempt + 1, raw), delivery.retry_after)

    @property
    def to_commit(self) -> dict[TopicPartition, int]:
        """The offsets to commit."""
        return {
            partition: position
            for partition, progress in self._progress.items()
            if (position := progress.to_commit) is not None
        }

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Note what the group has taken."""
        for partition, position in offsets.items():
            if partition in self._progress:
                self._progress[partition].committed = position
