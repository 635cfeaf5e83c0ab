"""One member of a Kafka group, or a reader of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from aiokafka import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import TopicPartition

from ...broker import Delivery, Outcome, Subscription
from ...errors import BrokerError
from .later import Later
from .leaving import leave
from .progress import Progress, progress_of
from .wire import read

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiokafka import AIOKafkaConsumer

log = logging.getLogger("ketch.broker")

#: Seconds between two commits, what was settled since comes again after a crash; and for a commit to be answered.
_COMMIT: Final = 0.1
_ANSWER: Final = 5.0

#: Seconds that a rebalance waits for what is in hand.
_HAND_OVER: Final = 30.0

#: Seconds without partitions after which something is wrong, and after which only subscribing anew can help.
_TROUBLE: Final = 45.0
_LOST: Final = 120.0

#: Deliveries given back that wait, and offsets behind the first that is unsettled: more aren't taken meanwhile.
_WAITING: Final = 4096
_SPAN: Final = 50_000

#: Milliseconds that one look for records waits, and the last one.
_POLL: Final = 500
_REST: Final = 150


class KafkaSubscription(Subscription):
    """Takes records of the partitions that are this member's; commits what is settled without a gap.

    A delivery that is given back is delivered again here, and nothing after it is committed until it is settled.
    """

    def __init__(
        self, consumer: AIOKafkaConsumer, topic: str, name: str, prefetch: int, *, group: str | None = None
    ) -> None:
        self.topic = topic
        self.name = name
        self.closed = False
        self._consumer = consumer
        self._group = group
        self._limit = prefetch
        self._progress: dict[TopicPartition, Progress] = {}
        self._later = Later()
        self._rest: list[Delivery] = []
        self._room = asyncio.Event()
        self._settled = asyncio.Event()
        self._assigned = asyncio.Event()
        self._stopping = asyncio.Event()
        self._leaving: asyncio.Task[None] | None = None
        self._polling = asyncio.Lock()
        self._committing = asyncio.Lock()
        self._uncommitted = ""
        self._away = False
        self._joining: float | None = asyncio.get_running_loop().time()
        self._task: asyncio.Task[None] | None = None

    @property
    def _left(self) -> bool:
        return self._leaving is not None

    @property
    def listener(self) -> Listener:
        """What the driver tells of rebalances."""
        return Listener(self)

    @property
    def trouble(self) -> str:
        """Whether its driver is at an end, or its group is, or it can't commit."""
        if self._left:
            return ""
        if dead := self._dead():
            return dead
        if self._without_partitions() > _TROUBLE:
            return f"group {self._group} of {self.topic} is being rebalanced without end"
        return self._uncommitted

    def _dead(self) -> str:
        """Return which of the driver's tasks has ended, after which it would be silent for ever."""
        consumer = self._consumer
        fetching = getattr(consumer._fetcher, "error_future", None)  # noqa: SLF001 - it tells nobody
        coordinating = getattr(consumer._coordinator, "_coordination_task", None)  # noqa: SLF001
        if (fetching is not None and fetching.done()) or (coordinating is not None and coordinating.done()):
            return f"the driver has stopped to fetch {self.topic}"
        return ""

    def _without_partitions(self) -> float:
        if self._joining is None or self._away:
            return 0.0
        return asyncio.get_running_loop().time() - self._joining

    def start(self) -> None:
        """Begin to commit."""
        self._task = asyncio.create_task(self._look_after(), name=f"ketch commits of {self.topic}")

    async def assigned(self, seconds: float) -> None:
        """Wait until the group has given this member its share, for so long at most."""
        await _first(self._assigned.wait(), seconds)

    # what the broker tells

    def lost(self) -> None:
        """The cluster doesn't answer: nothing that takes long is wrong."""
        self._away = True

    async def back(self) -> None:
        """The cluster answers again, perhaps with other topics than before."""
        self._away = False
        if self._joining is not None:
            self._joining = asyncio.get_running_loop().time()
        if not self._left:
            await _first(self._consumer._client.force_metadata_update(), _ANSWER)  # noqa: SLF001 - no public way

    # rebalances

    async def revoked(self, partitions: Iterable[TopicPartition]) -> None:
        """Make ready to give partitions up: what is in hand is waited for, what is settled is committed.

        All are asked for at each rebalance, and most come back; which, `given` says.
        """
        held = [self._progress[partition] for partition in partitions if partition in self._progress]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HAND_OVER):
                while any(progress.in_hand for progress in held) and not self._left:
                    self._settled.clear()
                    await self._settled.wait()
        await self._commit()
        self._joining = asyncio.get_running_loop().time()

    def given(self, partitions: Iterable[TopicPartition]) -> None:
        """Take partitions on, and drop what is of others: their new members get it again."""
        kept = {partition: self._progress.get(partition) or Progress() for partition in partitions}
        for partition, progress in self._progress.items():
            progress.current = partition in kept
            progress.begin_anew()
        self._progress = kept
        self._later.keep(lambda delivery: progress_of(delivery).current)
        self._joining = None
        self._room.set()
        self._assigned.set()

    # what the consumer does

    def _in_hand(self) -> int:
        return sum(progress.in_hand for progress in self._progress.values())

    async def receive(self) -> Sequence[Delivery]:
        """Return what has come; deliveries given back when they are due."""
        while not self._stopping.is_set() and not self._rest:
            # What is due again doesn't keep from looking for what is new: one that always fails would starve the rest.
            room = self._room_for_new()
            batch = await self._poll(room) if room > 0 else []
            batch += self._due(self._limit - self._in_hand())
            if batch:
                return batch
            if room <= 0:
                self._room.clear()
                await _first(self._room.wait(), max(0.01, self._later.next))
            elif self._without_partitions() > _LOST or self._dead():
                raise BrokerError(self.trouble)
        rest, self._rest = self._rest, []
        return rest

    def _room_for_new(self) -> int:
        span = sum(progress.span for progress in self._progress.values())
        return min(self._limit - self._in_hand(), _WAITING - len(self._later), _SPAN - span)

    def _due(self, most: int) -> list[Delivery]:
        due = [] if self._stopping.is_set() or self._rest or most <= 0 else self._later.due(most)
        for delivery in due:
            progress_of(delivery).waiting -= 1
        return due

    async def _poll(self, room: int) -> list[Delivery]:
        wait = min(_POLL, max(1, int(self._later.next * 1000)))
        async with self._polling:
            polling = asyncio.ensure_future(self._consumer.getmany(timeout_ms=wait, max_records=room))
            stopping = asyncio.ensure_future(self._stopping.wait())
            try:
                # The driver doesn't keep to its timeout while its group is rebalanced.
                await asyncio.wait({polling, stopping}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                # Whoever receives next gets what the driver has handed out already; it would not do so again.
                await _end(polling)
                with contextlib.suppress(BrokerError):
                    self._rest += self._found(polling)
                raise
            finally:
                stopping.cancel()
            await _end(polling)
            return self._found(polling)

    def _found(self, polling: asyncio.Future[dict[TopicPartition, list[Any]]]) -> list[Delivery]:
        if polling.cancelled():
            return []
        try:
            return self._take(polling.result())
        except (KafkaError, OSError) as error:
            raise BrokerError(f"{self.topic}: {error}") from error

    def _take(self, found: dict[TopicPartition, list[Any]]) -> list[Delivery]:
        batch: list[Delivery] = []
        for partition, records in found.items():
            progress = self._progress.get(partition)
            if progress is None:
                progress = self._progress[partition] = Progress()
            for record in records:
                if not progress.fits(record.offset, record.timestamp):
                    progress = self._replace(partition)
                if progress.take(record.offset, record.timestamp):
                    batch.append(Delivery(read(self.topic, record), 1, (record.offset, progress)))
        return batch

    def _replace(self, partition: TopicPartition) -> Progress:
        """Forget what was of a log that is no more."""
        log.warning("kafka: partition %d of %s begins anew; its log was lost", partition.partition, self.topic)
        self._progress[partition].current = False
        self._later.keep(lambda delivery: progress_of(delivery).current)
        progress = self._progress[partition] = Progress()
        return progress

    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Note what is settled; it is committed within a tenth of a second."""
        for delivery, outcome in settled:
            raw: Any = delivery.raw
            offset, progress = raw
            if not progress.current:
                continue  # the partition is another member's now, who gets it again
            if outcome is Outcome.DONE:
                progress.settle(offset)
            else:
                progress.waiting += 1
                self._later.add(Delivery(delivery.message, delivery.attempt + 1, raw), delivery.retry_after)
        self._room.set()
        self._settled.set()

    async def limit(self, unsettled: int) -> None:
        """Hold fewer or more from now on."""
        self._limit = unsettled
        self._room.set()

    # commits

    async def _look_after(self) -> None:
        while not self._left:
            await asyncio.sleep(_COMMIT)
            await self._commit()
            if self._stopping.is_set() and not self._in_hand():
                await self._leave()
            elif self._group is None:
                await self._take_new_partitions()

    async def _commit(self) -> None:
        if self._group is None:
            return
        async with self._committing:
            offsets = {
                partition: position
                for partition, progress in self._progress.items()
                if progress.current and (position := progress.to_commit) is not None
            }
            if offsets and await self._committed(offsets):
                for partition, position in offsets.items():
                    if partition in self._progress:
                        self._progress[partition].committed = position

    async def _committed(self, offsets: dict[TopicPartition, int]) -> bool:
        """Commit; tell whether the group took it. What it didn't take is tried again, or comes again elsewhere."""
        try:
            async with asyncio.timeout(_ANSWER):
                await self._consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError):
            return False  # a rebalance took them; whoever has them now gets what wasn't committed
        except (KafkaError, OSError, TimeoutError) as error:
            if not self._uncommitted:
                log.warning("kafka: offsets of %s can't be committed, trying on: %s", self.topic, error or "no answer")
            self._uncommitted = f"offsets of {self.topic} can't be committed"
            return False
        self._uncommitted = ""
        return True

    async def _take_new_partitions(self) -> None:
        """Read what was added to the topic as well, from its beginning: no group does it for us."""
        known = self._consumer.partitions_for_topic(self.name) or set()
        new = [p for p in (TopicPartition(self.name, number) for number in sorted(known)) if p not in self._progress]
        if not new or self._stopping.is_set():
            return
        async with self._polling:
            try:
                async with asyncio.timeout(_ANSWER):
                    places = {partition: await self._consumer.position(partition) for partition in self._progress}
            except (KafkaError, TimeoutError, OSError):
                return  # it is looked for again soon
            self._consumer.assign([*places, *new])
            for partition, place in places.items():
                self._consumer.seek(partition, place)
            self.given([*places, *new])

    # the end

    async def stop(self) -> None:
        """Take no more; the group gives the partitions to others as soon as what is in hand is settled."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._room.set()
        await self._take_the_rest()
        if not self._in_hand():
            await self._leave()

    async def _take_the_rest(self) -> None:
        """Take what the driver has fetched already, as far as it may be in hand."""
        room = self._limit - self._in_hand()
        if room <= 0:
            return
        async with self._polling:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(_ANSWER):
                    self._rest += self._take(await self._consumer.getmany(timeout_ms=_REST, max_records=room))

    async def _leave(self) -> None:
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._depart(), name=f"ketch leaves {self.topic}")
            self._settled.set()
        await asyncio.shield(self._leaving)

    async def _depart(self) -> None:
        await self._commit()
        await leave(self._consumer, self.topic)

    async def close(self) -> None:
        """Commit what is settled, leave the group; the rest is somebody else's."""
        self.closed = True
        await self.stop()
        await self._leave()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for progress in self._progress.values():
            progress.current = False
        self._progress.clear()


async def _first(waiting: Any, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await waiting


async def _end(task: asyncio.Future[Any]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})


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
