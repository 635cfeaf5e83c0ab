"""Parallel: several events at a time, those of one key one after the other."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from ..broker import Delivery, Outcome
from ..cancellation import cancelled
from ..errors import BrokerError, KetchError
from .lanes import Lanes
from .serial import TURN

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ..broker import Subscription
    from .handling import Handling
    from .pace import Pace
    from .settler import Settler

log = logging.getLogger("ketch.consumer")

_UNORDERED: Final = "%s: order_by failed on %r, so it is handled in no order, as are others like it: %r"

#: Deliveries received ahead at brokers that don't bound what is unsettled themselves.
_AHEAD: Final = 1024


class Parallel:
    """A fixed number of workers, which are fed from one subscription.

    A delivery that waits for its retry holds up its key and nothing else: its worker goes on with others.
    """

    def __init__(
        self, handling: Handling[Any], subscription: Subscription, settler: Settler | None, pace: Pace | None
    ) -> None:
        self._handling = handling
        self._subscription = subscription
        self._settler = settler
        self._pace = pace
        self._key = _key_of(handling)
        self._lanes: Lanes[Delivery] = Lanes()
        self._idle: list[asyncio.Future[None]] = []
        self._later: dict[asyncio.TimerHandle, tuple[Hashable, Delivery]] = {}
        self._room = asyncio.Event()
        self._out = 0
        self._ended = False
        self._took = 0.0
        self._count = 0

    @property
    def waiting(self) -> int:
        """What was received and not begun."""
        return len(self._lanes) + len(self._later)

    async def run(self) -> None:
        """Handle what comes until the subscription ends.

        Raises:
            BrokerError: it is lost.
        """
        count = self._handling.terms.concurrency
        name = f"ketch worker of {self._handling.name}"
        workers = [asyncio.create_task(self._work(), name=f"{name} #{n + 1}") for n in range(count)]
        feeding = asyncio.create_task(self._feed(), name=f"ketch feeding of {self._handling.name}")
        try:
            await asyncio.wait({feeding, *workers}, return_when=asyncio.FIRST_COMPLETED)
            for worker in workers:
                if worker.done():
                    worker.result()  # a fault of ours, since a handler's stays inside; it ends all of them
            await feeding
        finally:
            await self._end(feeding, workers)

    async def _end(self, feeding: asyncio.Task[None], workers: list[asyncio.Task[None]]) -> None:
        self._drop_later(settle=False)
        for task in (feeding, *workers):
            task.cancel()
        # Whoever cancels us bounds this wait.
        await asyncio.wait({feeding, *workers})

    async def _feed(self) -> None:
        try:
            await self._take_in()
        except BrokerError:
            # What waits will come again, and what is in hand is seen through all the same.
            self._ended = True
            self._lanes.clear()
            self._drop_later(settle=False)
            await self._see_out()
            raise
        self._ended = True
        self._drop_later(settle=True)
        await self._see_out()

    async def _see_out(self) -> None:
        while self._out or len(self._lanes):
            await self._make_room()

    def _drop_later(self, *, settle: bool) -> None:
        """Wait for retries no more; they are given back, with what is behind them."""
        for timer, (key, delivery) in self._later.items():
            timer.cancel()
            if settle:
                self._give_back(key, delivery)
        self._later.clear()

    def _give_back(self, key: Hashable, delivery: Delivery) -> None:
        """Give a delivery back to the broker, and all that is behind it: it must not be overtaken."""
        behind = self._lanes.drop(key)
        if self._settler is not None:
            for given in (delivery, *behind):
                self._settler.add(given, Outcome.AGAIN)
        elif behind:
            log.error("%s: dropped %d events behind %r: it stops", self._handling.name, len(behind), delivery.message)

    async def _take_in(self) -> None:
        lanes, key = self._lanes, self._key
        while batch := await self._subscription.receive():
            for delivery in batch:
                lanes.put(key(delivery), delivery)
            self._wake()
            while len(lanes) + len(self._later) >= _AHEAD:
                await self._make_room()
            await self._keep_pace()

    async def _make_room(self) -> None:
        self._room.clear()
        await self._room.wait()

    async def _keep_pace(self) -> None:
        if self._pace is not None and self._count:
            limit = self._pace.observe(self._count, self._took)
            self._count, self._took = 0, 0.0
            if limit is not None:
                await self._subscription.limit(limit)

    def _wake(self) -> None:
        idle = self._idle
        for _ in range(min(len(idle), self._lanes.ready)):
            waiter = idle.pop()
            if not waiter.done():
                waiter.set_result(None)

    async def _work(self) -> None:
        lanes, handling, loop = self._lanes, self._handling, asyncio.get_running_loop()
        stats, turn = handling.stats, 0
        while True:
            if not lanes.ready:
                waiter = loop.create_future()
                self._idle.append(waiter)
                await waiter
                continue
            key, delivery = lanes.take()
            self._out += 1
            stats.running += 1
            began = time.perf_counter()
            try:
                outcome = await self._see_through(key, delivery)
            finally:
                self._out -= 1
                stats.running -= 1
            took = time.perf_counter() - began
            stats.seconds += took
            self._took += took
            self._count += 1
            if outcome is Outcome.AGAIN and handling.stopping and handling.policy.in_place:
                self._give_back(key, delivery)
            elif outcome is not None:
                lanes.done(key)
                if self._settler is not None:
                    self._settler.add(delivery, outcome)
                if lanes.ready > 1:
                    self._wake()
            self._room.set()
            if handling.stopping and cancelled():
                return
            turn += 1
            if turn == TURN:
                turn = 0
                await asyncio.sleep(0)

    async def _see_through(self, key: Hashable, delivery: Delivery) -> Outcome | None:
        """Handle a delivery; None where it will be tried again here."""
        handling = self._handling
        error = None if self._settler is None else handling.screen(delivery)
        if error is not None:
            return await handling.give_up(delivery, error)
        error = await handling.attempt(delivery)
        if error is None:
            return Outcome.DONE
        verdict = handling.judge(delivery, error)
        if verdict is None:
            return await handling.give_up(delivery, error)
        if isinstance(verdict, Outcome) or handling.stopping or self._ended:
            return Outcome.AGAIN
        self._try_later(verdict, key, delivery)
        return None

    def _try_later(self, seconds: float, key: Hashable, delivery: Delivery) -> None:
        def due() -> None:
            del self._later[timer]
            delivery.attempt += 1
            self._lanes.again(key, delivery)
            self._wake()

        timer = asyncio.get_running_loop().call_later(seconds, due)
        self._later[timer] = key, delivery


def _key_of(handling: Handling[Any]) -> Callable[[Delivery], Hashable]:
    order_by, decode = handling.terms.order_by, handling.decode
    told = False
    if order_by is None:
        return _message_key

    def key(delivery: Delivery) -> Hashable:
        try:
            value = order_by(decode(delivery.message))
            hash(value)
        except KetchError:
            return None  # it can't be decoded; handling it tells the rest
        except Exception as error:  # noqa: BLE001 - the border between ketch and the user's code
            nonlocal told
            # Once is enough: it may be so for each event.
            log.log(logging.DEBUG if told else logging.ERROR, _UNORDERED, handling.name, delivery.message, error)
            told = True
            return None
        else:
            return value

    return key


def _message_key(delivery: Delivery) -> Hashable:
    return delivery.message.key
