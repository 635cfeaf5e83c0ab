"""One member of a Kafka group, or a reader of its own."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
from typing import TYPE_CHECKING, Any, Final

from aiokafka import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from ...broker import Delivery, Outcome, Subscription
from ...errors import BrokerError
from .leaving import leave
from .progress import Progress
from .wire import read

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiokafka import AIOKafkaConsumer
    from aiokafka.structs import TopicPartition

log = logging.getLogger("ketch.broker")

#: Seconds between two commits; what was settled since comes again after a crash.
_COMMIT: Final = 0.1

#: Seconds that a rebalance waits for what is in hand.
_HAND_OVER: Final = 30.0

#: Milliseconds that one look for records waits, and the last one.
_POLL: Final = 500
_REST: Final = 150


class KafkaSubscription(Subscription):
    """Takes records of the partitions that are this member's; commits what is settled without a gap.

    A delivery that is given back is delivered again here, and nothing after it is committed until it is settled.
    """

    def __init__(self, consumer: AIOKafkaConsumer, topic: str, prefetch: int, *, group: str | None) -> None:
        self.topic = topic
        self._consumer = consumer
        self._group = group
        self._limit = prefetch
        self._progress: dict[TopicPartition, Progress] = {}
        self._again: list[tuple[float, int, Delivery]] = []
        self._numbers = itertools.count()
        self._room = asyncio.Event()
        self._settled = asyncio.Event()
        self._assigned = asyncio.Event()
        self._stopped = False
        self._left = False
        self._polling = asyncio.Lock()
        self._rest: list[Delivery] = []
        self._stopping = asyncio.Event()
        self._committing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def listener(self) -> Listener:
        """What the driver tells of rebalances."""
        return Listener(self)

    def start(self) -> None:
        """Begin to commit."""
        self._task = asyncio.create_task(self._commit_regularly(), name=f"ketch commits of {self.topic}")

    async def assigned(self, seconds: float) -> None:
        """Wait until the group has given this member its share, for so long at most."""
        await self._first(self._assigned.wait(), seconds)

    # rebalances

    async def revoked(self, partitions: Iterable[TopicPartition]) -> None:
        """Make ready to give partitions up: what is in hand is waited for, what is settled is committed.

        All are asked for at each rebalance, and most come back; which, `given` says.
        """
        held = [self._progress[partition] for partition in partitions if partition in self._progress]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HAND_OVER):
                while any(progress.unsettled for progress in held) and not self._left:
                    self._settled.clear()
                    await self._settled.wait()
        await self._commit()

    def given(self, partitions: Iterable[TopicPartition]) -> None:
        """Take partitions on, and drop what is of others: their new members get it again."""
        kept = {partition: self._progress.get(partition) or Progress() for partition in partitions}
        for partition, progress in self._progress.items():
            progress.current = partition in kept
        self._progress = kept
        self._again = [entry for entry in self._again if _progress(entry[2]).current]
        heapq.heapify(self._again)
        self._room.set()
        self._assigned.set()

    # what the consumer does

    def _in_hand(self) -> int:
        return sum(progress.unsettled for progress in self._progress.values()) - len(self._again)

    async def receive(self) -> Sequence[Delivery]:
        """Return what has come; deliveries given back when they are due."""
        while not self._stopped:
            room = self._limit - self._in_hand()
            if room <= 0:
                self._room.clear()
                await self._first(self._room.wait(), self._next_due())
                continue
            # What is due again doesn't keep from looking for what is new: one that always fails would starve the rest.
            batch = await self._poll(room)
            batch += self._due(room - len(batch))
            if batch:
                return batch
        rest, self._rest = self._rest, []
        return rest

    async def _poll(self, room: int, wait: int = _POLL) -> list[Delivery]:
        wait = min(wait, max(1, int(self._next_due() * 1000)))
        async with self._polling:
            polling = asyncio.ensure_future(self._consumer.getmany(timeout_ms=wait, max_records=room))
            stopping = asyncio.ensure_future(self._stopping.wait())
            try:
                await asyncio.wait({polling, stopping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopping.cancel()
                if not polling.done():
                    polling.cancel()
                    await asyncio.wait({polling})
            if polling.cancelled():
                return []
            try:
                found: dict[TopicPartition, list[Any]] = polling.result()
            except (KafkaError, OSError) as error:
                raise BrokerError(f"{self.topic}: {error}") from error
            return self._take(found)

    def _take(self, found: dict[TopicPartition, list[Any]]) -> list[Delivery]:
        batch: list[Delivery] = []
        for partition, records in found.items():
            progress = self._progress.get(partition)
            if progress is None:
                progress = self._progress[partition] = Progress()
            for record in records:
                if record.offset <= progress.last:
                    continue  # the driver begins anew after a rebalance; this one is in hand
                progress.take(record.offset)
                batch.append(Delivery(read(partition.topic, record), 1, (record.offset, progress)))
        return batch

    def _next_due(self) -> float:
        if not self._again:
            return 3600.0
        return max(0.0, self._again[0][0] - asyncio.get_running_loop().time())

    def _due(self, room: int) -> list[Delivery]:
        now = asyncio.get_running_loop().time()
        due: list[Delivery] = []
        while self._again and self._again[0][0] <= now and len(due) < max(1, room):
            due.append(heapq.heappop(self._again)[2])
        return due

    async def _first(self, waiting: Any, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await waiting

    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Note what is settled; it is committed within a tenth of a second."""
        now = asyncio.get_running_loop().time()
        for delivery, outcome in settled:
            if not isinstance(delivery.raw, tuple):
                continue
            offset, progress = delivery.raw
            if not progress.current:
                continue  # the partition is another member's now, who gets it again
            if outcome is Outcome.DONE:
                progress.settle(offset)
            else:
                fresh = Delivery(delivery.message, delivery.attempt + 1, delivery.raw)
                heapq.heappush(self._again, (now + delivery.retry_after, next(self._numbers), fresh))
        self._room.set()
        self._settled.set()

    async def limit(self, unsettled: int) -> None:
        """Hold fewer or more from now on."""
        self._limit = unsettled
        self._room.set()

    # commits

    async def _commit_regularly(self) -> None:
        while not self._left:
            await asyncio.sleep(_COMMIT)
            await self._commit()
            if self._stopped and not self._in_hand():
                await self._leave()

    async def _commit(self) -> None:
        if self._group is None:
            return
        async with self._committing:
            offsets = {
                partition: position
                for partition, progress in self._progress.items()
                if progress.current and (position := progress.to_commit) is not None
            }
            if not offsets:
                return
            try:
                await self._consumer.commit(offsets)
            except (CommitFailedError, IllegalStateError):
                return  # a rebalance took them; whoever has them now gets what wasn't committed
            except (KafkaError, OSError) as error:
                log.warning("kafka: offsets of %s could not be committed, trying on: %s", self.topic, error)
                return
            for partition, position in offsets.items():
                if partition in self._progress:
                    self._progress[partition].committed = position

    async def stop(self) -> None:
        """Take no more; the group gives the partitions to others as soon as what is in hand is settled."""
        if self._stopped:
            return
        self._stopped = True
        self._stopping.set()
        self._room.set()
        await self._take_the_rest()
        self._again.clear()
        if not any(progress.unsettled for progress in self._progress.values()):
            await self._leave()

    async def _take_the_rest(self) -> None:
        """Take what the driver has fetched already, as far as it may be in hand."""
        room = self._limit - self._in_hand()
        if room <= 0:
            return
        async with self._polling:
            with contextlib.suppress(KafkaError, OSError):
                self._rest = self._take(await self._consumer.getmany(timeout_ms=_REST, max_records=room))

    async def _leave(self) -> None:
        if self._left:
            return
        self._left = True
        self._settled.set()
        await self._commit()
        await leave(self._consumer, self.topic)

    async def close(self) -> None:
        """Commit what is settled, leave the group; the rest is somebody else's."""
        await self.stop()
        await self._leave()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for progress in self._progress.values():
            progress.current = False
        self._progress.clear()


def _progress(delivery: Delivery) -> Progress:
    raw: Any = delivery.raw
    progress: Progress = raw[1]
    return progress


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # the driver is untyped
    """Passes on what the driver tells of rebalances."""

    def __init__(self, subscription: KafkaSubscription) -> None:
        self._subscription = subscription

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Give them up."""
        await self._subscription.revoked(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take them on."""
        self._subscription.given(assigned)
