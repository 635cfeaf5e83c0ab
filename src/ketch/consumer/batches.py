"""Batches: a handler that takes many events at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from ..broker import Delivery, Outcome
from ..call import Call, Kind
from ..cancellation import cancelled
from ..context import Context, enter
from ..errors import BrokerError, Reject
from ..expiry import seconds_left
from ..retry import ONCE

if TYPE_CHECKING:
    from ..broker import Subscription
    from .handling import Handling
    from .settler import Settler

log = logging.getLogger("ketch.consumer")


class Batches:
    """Gathers events until there are `batch` of them, or `within` seconds have passed since the first.

    A batch that fails is tried again as a whole, as the retry policy has it; the last time event by event, so that only
    those that fail by themselves go to the dead letters. A body that can't be decoded goes there at once.

    Attributes:
        waiting: what was received and not begun.
    """

    def __init__(self, handling: Handling[Any], subscription: Subscription, settler: Settler | None) -> None:
        self.waiting: deque[Delivery] = deque()
        self._handling = handling
        self._subscription = subscription
        self._settler = settler
        self._size = handling.terms.batch or 1
        self._gathering = asyncio.Lock()
        self._ended = False
        self._lost: BrokerError | None = None

    async def run(self) -> None:
        """Handle what comes until the subscription ends.

        Raises:
            BrokerError: it is lost.
        """
        name = f"ketch batches of {self._handling.name}"
        workers = [
            asyncio.create_task(self._work(), name=f"{name} #{n + 1}") for n in range(self._handling.terms.concurrency)
        ]
        try:
            await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            if self._lost is not None:
                await asyncio.wait(workers)  # what is in hand is seen through all the same
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)

    async def _work(self) -> None:
        while batch := await self._gather():
            stats, began = self._handling.stats, time.perf_counter()
            stats.running += 1
            try:
                await self._handle(batch)
            finally:
                stats.running -= 1
                stats.seconds += time.perf_counter() - began
            if self._handling.stopping and cancelled():
                return  # the handler would not be cancelled; there is no time for another batch
            await asyncio.sleep(0)

    async def _gather(self) -> list[Delivery]:
        waiting, size = self.waiting, self._size
        async with self._gathering:
            if not waiting and not self._ended:
                await self._receive()
            try:
                async with asyncio.timeout(self._handling.terms.within):
                    while len(waiting) < size and not self._ended:
                        await self._receive()
            except TimeoutError:
                pass
            return [waiting.popleft() for _ in range(min(size, len(waiting)))]

    async def _receive(self) -> None:
        try:
            batch = await self._subscription.receive()
        except BrokerError as error:
            # What waits will come again.
            self._ended, self._lost = True, error
            self.waiting.clear()
            raise
        self.waiting.extend(batch)
        self._ended = not batch

    async def _handle(self, batch: list[Delivery]) -> None:
        good: list[tuple[Delivery, object]] = []
        timed = self._handling.topic.lifetime is not None
        for delivery in batch:
            if timed and self._handling.expired(delivery, seconds_left(delivery.message)):
                self._settle(delivery, Outcome.DONE)
                continue
            error = None if self._settler is None else self._handling.screen(delivery)
            if error is None:
                try:
                    good.append((delivery, self._handling.decode(delivery.message)))
                    continue
                except Exception as fault:  # noqa: BLE001 - a codec may be the user's code
                    self._handling.judge(delivery, fault)
                    error = fault
            self._settle(delivery, await self._handling.give_up(delivery, error))
        if good:
            await self._try(good)

    async def _try(self, items: list[tuple[Delivery, object]]) -> None:
        handling = self._handling
        error = await self._attempt(items)
        first = items[0][0]
        while error is not None:
            verdict = handling.judge(first, error)
            for delivery, _ in items:
                delivery.failures, delivery.retry_after = first.failures, first.retry_after
            last = verdict is None or first.failures + 1 >= handling.policy.attempts
            if isinstance(verdict, Outcome) or (verdict is not None and not await handling.sleep(verdict)):
                self._settle_all(items, Outcome.AGAIN)
                return
            if last and len(items) > 1 and handling.policy is not ONCE and not isinstance(error, Reject):
                for item in items:
                    await self._try([item])
                return
            if verdict is None:
                for delivery, _ in items:
                    self._settle(delivery, await handling.give_up(delivery, error))
                return
            error = await self._attempt(items)
        self._settle_all(items, Outcome.DONE)

    def _settle_all(self, items: list[tuple[Delivery, object]], outcome: Outcome) -> None:
        for delivery, _ in items:
            self._settle(delivery, outcome)

    async def _attempt(self, items: list[tuple[Delivery, object]]) -> BaseException | None:
        handling = self._handling
        topic, payloads = handling.topic.name, [payload for _, payload in items]
        enter(Context(topic, attempt=items[0][0].failures + 1))
        try:
            await handling.call(Call(Kind.CONSUME, topic, payloads, {}, timeout=handling.terms.timeout))
        except asyncio.CancelledError as error:
            if cancelled():
                raise
            return error
        except Exception as error:  # noqa: BLE001 - the border between ketch and the user's code
            return error
        handling.stats.handled += len(items)
        return None

    def _settle(self, delivery: Delivery, outcome: Outcome) -> None:
        if self._settler is not None:
            self._settler.add(delivery, outcome)
