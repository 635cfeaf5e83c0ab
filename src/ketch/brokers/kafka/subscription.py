"""One member of a Kafka group, or a reader of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from ...broker import Subscription
from ...errors import BrokerError
from .commits import Commits
from .hand import Hand
from .leaving import leave
from .listener import Listener

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiokafka import AIOKafkaConsumer

    from ...broker import Delivery, Outcome

log = logging.getLogger("ketch.broker")

#: Seconds between two commits, what was settled since comes again after a crash; and for an answer.
_COMMIT: Final = 0.1
_ANSWER: Final = 5.0

#: Seconds that a rebalance waits for what is in hand.
_HAND_OVER: Final = 30.0

#: Seconds without partitions after which something is wrong, and after which only subscribing anew can help.
_TROUBLE: Final = 45.0
_LOST: Final = 120.0

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
        self._hand = Hand(topic)
        self._commits = Commits(consumer, topic, self._hand)
        self._rest: list[Delivery] = []
        self._room = asyncio.Event()
        self._settled = asyncio.Event()
        self._assigned = asyncio.Event()
        self._stopping = asyncio.Event()
        self._leaving: asyncio.Task[None] | None = None
        self._polling = asyncio.Lock()
        self._away = False
        self._joining: float | None = asyncio.get_running_loop().time()
        self._task: asyncio.Task[None] | None = None

    @property
    def _left(self) -> bool:
        return self._leaving is not None

    @property
    def listener(self) -> Listener:
        """What the driver tells of rebalances."""
        return Listener(self.revoked, self.given)

    @property
    def trouble(self) -> str:
        """Whether its driver is at an end, or its group is, or it can't commit."""
        if self._left:
            return ""
        if dead := self._dead():
            return dead
        if self._without_partitions() > _TROUBLE:
            return f"group {self._group} of {self.topic} is being rebalanced without end"
        return self._commits.trouble

    def _dead(self) -> str:
        """Return which task has ended, after which there would be silence for ever."""
        consumer = self._consumer
        fetching = getattr(consumer._fetcher, "error_future", None)  # noqa: SLF001 - it tells nobody
        coordinating = getattr(consumer._coordinator, "_coordination_task", None)  # noqa: SLF001
        if (fetching is not None and fetching.done()) or (coordinating is not None and coordinating.done()):
            return f"the driver has stopped to fetch {self.topic}"
        return f"nobody commits for {self.topic}" if self._task is not None and self._task.done() else ""

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
        held = list(partitions)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HAND_OVER):
                while self._hand.holds(held) and not self._left:
                    self._settled.clear()
                    await self._settled.wait()
        await self._commit()
        self._joining = asyncio.get_running_loop().time()

    def given(self, partitions: Iterable[TopicPartition]) -> None:
        """Take partitions on, and drop what is of others: their new members get it again."""
        self._hand.given(partitions)
        self._joining = None
        self._room.set()
        self._assigned.set()

    # what the consumer does

    async def receive(self) -> Sequence[Delivery]:
        """Return what has come; deliveries given back when they are due."""
        while not self._stopping.is_set() and not self._rest:
            # What is due again doesn't keep from looking for what is new: one that always fails would starve the rest.
            room = self._hand.room(self._limit)
            batch = await self._poll(room) if room > 0 else []
            if not self._stopping.is_set() and not self._rest:
                batch += self._hand.due(self._limit - len(self._hand))
            if batch:
                return batch
            if room <= 0:
                self._room.clear()
                await _first(self._room.wait(), max(0.01, self._hand.later.next))
            elif self._without_partitions() > _LOST or self._dead():
                raise BrokerError(self.trouble)
        rest, self._rest = self._rest, []
        return rest

    async def _poll(self, room: int) -> list[Delivery]:
        wait = min(_POLL, max(1, int(self._hand.later.next * 1000)))
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
            return self._hand.take(polling.result())
        except (KafkaError, OSError) as error:
            raise BrokerError(f"{self.topic}: {error}") from error

    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Note what is settled; it is committed within a tenth of a second."""
        self._hand.settle(settled)
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
            if self._stopping.is_set() and not self._hand:
                await self._leave()
            elif self._group is None:
                await self._take_new_partitions()

    async def _commit(self) -> None:
        if self._group is not None:
            await self._commits.commit()

    async def _take_new_partitions(self) -> None:
        """Read what was added to the topic as well, from its beginning: no group does it for us."""
        known = self._consumer.partitions_for_topic(self.name) or set()
        new = [
            p for p in (TopicPartition(self.name, number) for number in sorted(known)) if p not in self._hand.partitions
        ]
        if not new or self._stopping.is_set():
            return
        async with self._polling:
            try:
                async with asyncio.timeout(_ANSWER):
                    places = {
                        partition: await self._consumer.position(partition) for partition in self._hand.partitions
                    }
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
        if not self._hand:
            await self._leave()

    async def _take_the_rest(self) -> None:
        """Take what the driver has fetched already, as far as it may be in hand."""
        room = self._limit - len(self._hand)
        if room <= 0:
            return
        async with self._polling:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(_ANSWER):
                    self._rest += self._hand.take(await self._consumer.getmany(timeout_ms=_REST, max_records=room))

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
        self._hand.drop()


async def _first(waiting: Any, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await waiting


async def _end(task: asyncio.Future[Any]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
