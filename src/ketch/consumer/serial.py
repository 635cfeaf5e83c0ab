"""Serial: one event after the other, in arrival order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..broker import Delivery, Outcome
from ..cancellation import cancelled

if TYPE_CHECKING:
    from ..broker import Subscription
    from .handling import Handling
    from .pace import Pace
    from .settler import Settler

#: Deliveries handled before other tasks of the loop get a turn, though no handler awaited anything.
TURN: Final = 128


class Serial:
    """Handles one delivery after the other. While one waits for its retry, those after it wait too.

    Attributes:
        waiting: what was received and not begun.
    """

    def __init__(
        self, handling: Handling[Any], subscription: Subscription, settler: Settler | None, pace: Pace | None
    ) -> None:
        self.waiting: deque[Delivery] = deque()
        self._handling = handling
        self._subscription = subscription
        self._settler = settler
        self._pace = pace

    async def run(self) -> None:
        """Handle what comes until the subscription ends.

        Raises:
            BrokerError: it is lost.
        """
        while batch := await self._subscription.receive():
            self.waiting.extend(batch)
            began = time.perf_counter()
            try:
                await self._handle()
            finally:
                self._handling.stats.running = 0
            if self._handling.stopping and cancelled():
                return
            took = time.perf_counter() - began
            self._handling.stats.seconds += took
            if self._pace is not None:
                limit = self._pace.observe(len(batch), took)
                if limit is not None:
                    await self._subscription.limit(limit)

    async def _handle(self) -> None:
        handling, waiting, settler, done = self._handling, self.waiting, self._settler, Outcome.DONE
        invoke, screen = handling.invoke, handling.screen
        turn = 0
        stats = handling.stats
        stats.running = 1
        while waiting:
            delivery = waiting.popleft()
            outcome = done
            error = None if settler is None else screen(delivery)
            if error is None:
                try:
                    await invoke(delivery)
                    stats.handled += 1
                except asyncio.CancelledError as failure:
                    if cancelled():
                        raise
                    outcome = await handling.recover(delivery, failure)
                except Exception as failure:  # noqa: BLE001 - the border between ketch and the user's code
                    outcome = await handling.recover(delivery, failure)
            else:
                outcome = await handling.give_up(delivery, error)
            if settler is not None:
                settler.add(delivery, outcome)
                if outcome is Outcome.AGAIN and handling.stopping and handling.policy.in_place:
                    self._give_back(settler)  # what is behind it must not overtake it
            if handling.stopping and cancelled():
                return  # the handler went on to its end all the same; there is no time for another event
            turn += 1
            if turn == TURN:
                turn = 0
                await asyncio.sleep(0)

    def _give_back(self, settler: Settler) -> None:
        while self.waiting:
            settler.add(self.waiting.popleft(), Outcome.AGAIN)
