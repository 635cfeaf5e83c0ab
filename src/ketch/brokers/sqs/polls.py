"""Polls: long polls of one queue, as many at a time as the load asks for."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from ...broker import Delivery
from ...errors import BrokerError, BrokerUnavailable
from .aws import FIRST_PAUSE, LONGEST_PAUSE, jittered
from .failures import FAILURES, is_gone, is_passing, refusal
from .receipts import Receipt, give_back
from .wire import decode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .aws import Aws
    from .hand import Hand
    from .place import Place

log = logging.getLogger("ketch.broker")


class Polls:
    """Asks a queue for messages, while there is room in hand.

    One poll waits at a time. A full one has another begin beside it, an empty one ends unless it is the last.

    Attributes:
        place: where the queue is; another after it had to be made again.
        trouble: why nothing comes just now.
        failure: why nothing will come any more.
    """

    def __init__(self, aws: Aws, topic: str, place: Place, hand: Hand, declare: Callable[[], Awaitable[Place]]) -> None:
        self.place = place
        self.trouble = ""
        self.failure: BrokerError | None = None
        self._aws = aws
        self._topic = topic
        self._hand = hand
        self._declare = declare
        self._declaring = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._pause = FIRST_PAUSE

    def start(self) -> None:
        """Begin a poll."""
        task = asyncio.create_task(self._run(), name=f"sqs: polling for {self._topic}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 - this is one
        try:
            while not self._stopping:
                asked = await self._hand.reserve()
                self._calls.add(me)
                try:
                    came = await self._receive(asked)
                    if self._hand.closed:
                        await self._too_late(came)
                    else:
                        self._hand.put(came)
                finally:
                    self._calls.discard(me)
                    self._hand.release(asked)
                if self._is_enough(asked, len(came)):
                    return
        except BrokerError as error:
            self.failure = error
            self._hand.closed = True
            self._hand.wake()

    async def _too_late(self, came: list[Delivery]) -> None:
        """Give back what came after `stop`."""
        try:
            if came:
                await give_back(self._aws, self.place.queue, came)
        except BrokerError as error:
            log.info("sqs: what came for %s after its stop comes again later: %s", self._topic, error)

    def _is_enough(self, asked: int, came: int) -> bool:
        """Tell whether a poll may end; begin another if one isn't enough."""
        if came == asked and len(self._tasks) < self._aws.config.pollers and not self._stopping:
            self.start()
        return not came and len(self._tasks) > 1

    async def _receive(self, asked: int) -> list[Delivery]:
        """Poll once; return nothing when that failed in passing, after a pause."""
        config = self._aws.config
        began = time.monotonic()
        place = self.place
        try:
            async with asyncio.timeout(config.wait + config.timeout):
                reply = await self._aws.once(
                    "sqs",
                    "receive_message",
                    QueueUrl=place.queue,
                    MaxNumberOfMessages=asked,
                    # After trouble, a short one tells sooner that it is over.
                    WaitTimeSeconds=0 if self.trouble else config.wait,
                    VisibilityTimeout=config.visibility,
                    MessageAttributeNames=["All"],
                    MessageSystemAttributeNames=["ApproximateReceiveCount"],
                )
        except TimeoutError:
            self._aws.lost("a poll wasn't answered")
            await self._wait("a poll wasn't answered")
        except FAILURES as error:
            await self._recover(error, place)
        else:
            self.trouble, self._pause = "", FIRST_PAUSE
            return self._deliveries(reply, began)
        return []

    def _deliveries(self, reply: dict[str, Any], began: float) -> list[Delivery]:
        # The clock of the deadline starts at AWS some time between the two; the earliest is on the safe side, and a
        # poll may have waited long.
        now = time.monotonic()
        until = max(began, now - self._aws.config.timeout) + self._aws.config.visibility
        deliveries = []
        for received in reply.get("Messages", ()):
            count = str(received.get("Attributes", {}).get("ApproximateReceiveCount", "1"))
            raw = Receipt(received["ReceiptHandle"], now, until)
            deliveries.append(Delivery(decode(self._topic, received), int(count) if count.isdigit() else 1, raw))
        return deliveries

    async def _recover(self, error: BaseException, place: Place) -> None:
        if is_gone(error):
            await self._again(place)
        elif is_passing(error):
            await self._wait(str(error))
        else:
            raise refusal(error, self._aws.config.location, "sqs", "receive_message") from error

    async def _again(self, place: Place) -> None:
        """Make the queue again, and what leads to it."""
        async with self._declaring:
            if self.place is not place:
                return  # another poll was quicker
            self.trouble = f"{self._topic}: its queue has gone"
            try:
                self.place = await self._declare()
            except BrokerUnavailable as error:
                await self._wait(str(error))
            else:
                self.trouble = ""
                log.warning("sqs: the queue of %s had gone and was made again; what was in it is lost", self._topic)

    async def renew(self) -> None:
        """See to it that what leads to the queue is still there; SNS doesn't tell when it isn't."""
        async with self._declaring:
            self.place = await self._declare()

    async def _wait(self, why: str) -> None:
        self.trouble = f"{self._topic}: {why}"
        await asyncio.sleep(jittered(self._pause))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    async def stop(self, grace: float) -> None:
        """Begin no more polls; let those under way end, but wait no longer than `grace` seconds."""
        self._stopping = True
        for task in self._tasks - self._calls:
            task.cancel()
        if self._calls:
            await asyncio.wait(set(self._calls), timeout=grace)

    async def close(self) -> None:
        """End them all."""
        self._stopping = True
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
