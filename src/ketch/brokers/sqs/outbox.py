"""Outbox: one topic's events on their way to SNS, in batches."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import BrokerError, BrokerUnavailable
from .failures import is_gone
from .place import topic_arn

if TYPE_CHECKING:
    from .aws import Aws

#: Entries of a batch (SNS: PublishBatch).
_BATCH = 10

#: Batches of one topic under way at a time. Beyond it events wait, so that the next batches are full.
_FLIGHTS = 8


@dataclass(frozen=True, slots=True)
class _Letter:
    entry: dict[str, Any]
    size: int
    since: float
    taken: asyncio.Future[None]


class Outbox:
    """Publishes what is given within one turn of the event loop together; waits for SNS to have taken it."""

    def __init__(self, aws: Aws, topic: str) -> None:
        self._aws = aws
        self._topic = topic
        self._arn = ""
        self._declaring = asyncio.Lock()
        self._waiting: deque[_Letter] = deque()
        self._flights: set[asyncio.Task[None]] = set()
        self._due = False

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._waiting and not self._flights

    def put(self, entry: dict[str, Any], size: int) -> asyncio.Future[None]:
        """Take an event; what is returned is done when SNS has it, or fails as `Broker.publish` does."""
        loop = asyncio.get_running_loop()
        letter = _Letter(entry, size, time.monotonic(), loop.create_future())
        self._waiting.append(letter)
        if not self._due:
            self._due = True
            loop.call_soon(self._launch)
        return letter.taken

    def _launch(self) -> None:
        self._due = False
        while self._waiting and len(self._flights) < _FLIGHTS:
            if batch := self._batch():
                flight = asyncio.create_task(self._fly(batch), name=f"sqs: publishing to {self._topic}")
                self._flights.add(flight)
                flight.add_done_callback(self._landed)

    def _batch(self) -> list[_Letter]:
        """Return the next that are still wanted, as far as they fit."""
        batch: list[_Letter] = []
        room = self._aws.config.max_size
        while self._waiting and len(batch) < _BATCH and self._waiting[0].size <= room:
            letter = self._waiting.popleft()
            if not letter.taken.done():
                batch.append(letter)
                room -= letter.size
        return batch

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        self._launch()

    async def _fly(self, batch: list[_Letter]) -> None:
        try:
            await self._publish(batch)
        except BrokerError as error:
            _fail(batch, error)
        finally:
            # None are left but when this task is cancelled: whoever waits must not wait for ever.
            _fail(batch, BrokerUnavailable("sqs: the broker was closed"))

    async def _publish(self, batch: list[_Letter]) -> None:
        """Publish a batch; again those of which SNS says that it was its own fault."""
        until = batch[0].since + self._aws.config.timeout
        letters = dict(enumerate(batch))
        while letters:
            entries = [{"Id": str(number), **letter.entry} for number, letter in letters.items()]
            reply = await self._call(entries, until)
            for done in reply.get("Successful", ()):
                _take(letters.pop(int(done["Id"]), None))
            for failed in reply.get("Failed", ()):
                if failed.get("SenderFault"):
                    why = f"{failed.get('Code')}: {failed.get('Message', '')}"
                    _fail([letters.pop(int(failed["Id"]))], BrokerError(f"sqs: {self._topic}: {why}"))
            if letters and time.monotonic() > until:
                raise BrokerUnavailable(f"sqs: {self._topic}: SNS doesn't take it within the timeout")

    async def _call(self, entries: list[dict[str, Any]], until: float) -> dict[str, Any]:
        """Publish entries; to a topic that was made anew if it has gone."""
        arn = self._arn or await self._declare("")
        try:
            return await self._aws.call("sns", "publish_batch", _left(until), **_batch(arn, entries))
        except BrokerError as error:
            if not is_gone(error):
                raise
        arn = await self._declare(arn)
        return await self._aws.call("sns", "publish_batch", _left(until), **_batch(arn, entries))

    async def _declare(self, old: str) -> str:
        """Make the topic, unless another flight did since `old` was found wanting."""
        async with self._declaring:
            if self._arn == old:
                self._arn = ""
                self._arn = await topic_arn(self._aws, self._topic)
            return self._arn

    async def drained(self) -> None:
        """Wait until nothing waits, and nothing is under way any more."""
        while not self.idle:
            if self._flights:
                await asyncio.wait(self._flights)
            else:
                await asyncio.sleep(0)


def _batch(arn: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"TopicArn": arn, "PublishBatchRequestEntries": entries}


def _left(until: float) -> float:
    return max(until - time.monotonic(), 0.1)


def _take(letter: _Letter | None) -> None:
    if letter is not None and not letter.taken.done():
        letter.taken.set_result(None)


def _fail(letters: list[_Letter], error: BrokerError) -> None:
    for letter in letters:
        if not letter.taken.done():
            letter.taken.set_exception(error)
