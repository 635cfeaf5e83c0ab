"""One member's share of a queue."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from ...broker import Delivery, Outcome, Subscription
from ...errors import BrokerError, SubscriptionRefused
from .hand import Hand
from .place import Place, declare, remove
from .polls import Polls
from .receipts import delete, give_back, hide

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .aws import Aws

log = logging.getLogger("ketch.broker")

#: Seconds that `stop` leaves to polls under way: what they bring then was taken, what comes later is given back.
_GRACE = 0.1

#: Seconds between two looks whether the topic still leads to the queue.
_RENEWAL = 300.0

#: The parts of the visibility after which it is looked at, and below which a delivery's is renewed.
_LOOK, _LOW = 0.2, 0.6


class SqsSubscription(Subscription):
    """Polls a queue, hides what was taken from others until it is settled, and sees to it that the queue is there.

    Attributes:
        closed: it was given up.
    """

    def __init__(self, aws: Aws, topic: str, queue: str, place: Place, prefetch: int, *, alone: bool) -> None:
        self._aws = aws
        self._topic = topic
        self._queue = queue
        self._alone = alone
        self._hand = Hand(prefetch)
        self._polls = Polls(aws, topic, place, self._hand, self._declare)
        self._polls.start()
        self._tasks = [asyncio.create_task(act(), name=f"sqs: {topic}") for act in (self._hide, self._renew)]
        self._stopping: asyncio.Task[None] | None = None
        self.closed = False

    async def _declare(self) -> Place:
        return await declare(self._aws, self._topic, self._queue, alone=self._alone)

    @property
    def trouble(self) -> str:
        """Why nothing comes just now."""
        return str(self._polls.failure or self._polls.trouble)

    async def receive(self) -> Sequence[Delivery]:
        """Return what the polls brought."""
        batch = await self._hand.take()
        if not batch and self._polls.failure is not None and not self.closed:
            raise SubscriptionRefused(f"{self._topic}: {self._polls.failure}") from self._polls.failure
        return batch

    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Delete what is done, let others see the rest."""
        mine = [(delivery, outcome) for delivery, outcome in settled if self._hand.drop(delivery)]
        done = [delivery for delivery, outcome in mine if outcome is Outcome.DONE]
        again = [delivery for delivery, outcome in mine if outcome is Outcome.AGAIN]
        errors: list[BrokerError] = []
        for act, deliveries in ((delete, done), (give_back, again)):
            try:
                if deliveries:
                    await act(self._aws, self._polls.place.queue, deliveries)
            except BrokerError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    async def limit(self, unsettled: int) -> None:
        """Take fewer or more ahead."""
        self._hand.resize(unsettled)

    async def _hide(self) -> None:
        """Hide what is in hand from others, on and on."""
        visibility = self._aws.config.visibility
        while True:
            await asyncio.sleep(visibility * _LOOK)
            expiring = self._hand.expiring(time.monotonic() + visibility * _LOW)
            if not expiring:
                continue
            try:
                lost = await hide(self._aws, self._polls.place.queue, expiring, visibility)
            except BrokerError as error:
                log.warning("sqs: deliveries of %s may come to others as well: %s", self._topic, error)
            else:
                self._let_go([delivery for delivery in lost if self._hand.holds(delivery)])

    def _let_go(self, lost: list[Delivery]) -> None:
        if lost:
            log.warning("sqs: %d deliveries of %s took too long and will come again", len(lost), self._topic)
            self._hand.lose(lost)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEWAL)
            try:
                await self._polls.renew()
            except BrokerError as error:
                log.warning("sqs: can't tell whether %s still leads to its queue: %s", self._topic, error)

    async def stop(self) -> None:
        """Take no more."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        await self._polls.stop(_GRACE)
        self._close_hand()

    def _close_hand(self) -> None:
        self._hand.closed = True
        self._hand.wake()

    async def close(self) -> None:
        """Give back what was not settled; delete a queue without a group."""
        if self.closed:
            return
        self.closed = True
        self._close_hand()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._polls.close()
        if self._stopping is not None:
            await self._stopping
        await self._give_up(self._hand.clear())

    async def _give_up(self, held: list[Delivery]) -> None:
        if self._aws.trouble:
            return  # what was held comes again when its time is up; leftovers.py finds the queue
        try:
            if self._alone:
                await remove(self._aws, self._polls.place)
            elif held:
                await give_back(self._aws, self._polls.place.queue, held)
        except BrokerError as error:
            log.info("sqs: closing the subscription to %s: %s", self._topic, error)
