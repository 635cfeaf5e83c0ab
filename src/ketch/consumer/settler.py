"""Settler: tells the broker what became of deliveries, in batches, while the next are handled."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ..cancellation import cancelled
from ..errors import BrokerError

if TYPE_CHECKING:
    from ..broker import Delivery, Outcome, Subscription

log = logging.getLogger("ketch.consumer")


class Settler:
    """Settles one subscription's deliveries.

    While a batch is on its way the next one gathers, so that a broker that answers slowly gets larger ones.
    """

    def __init__(self, subscription: Subscription, name: str) -> None:
        self._subscription = subscription
        self._name = name
        self._batch: list[tuple[Delivery, Outcome]] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task = asyncio.create_task(self._run(), name=f"ketch settling of {name}")

    def add(self, delivery: Delivery, outcome: Outcome) -> None:
        """Have a delivery settled soon."""
        self._batch.append((delivery, outcome))
        if not self._wake.is_set():
            self._wake.set()
            self._idle.clear()

    async def flush(self, timeout: float) -> None:
        """Wait until all of them are settled, or couldn't be; `timeout` seconds at most."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%s: the broker doesn't say that it took the last settlements; they may come again", self._name)

    async def close(self) -> None:
        """End; what isn't settled by now comes again."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._batch = self._batch, []
            try:
                await self._subscription.settle(batch)
            except BrokerError as error:
                log.warning(
                    "%s: %d deliveries could not be settled and will come again: %s", self._name, len(batch), error
                )
            except (Exception, asyncio.CancelledError):
                if cancelled():
                    raise
                # A plugin's fault must not end the settling: what it concerns will come again.
                log.exception("%s: %d deliveries could not be settled and will come again", self._name, len(batch))
            if not self._wake.is_set():
                self._idle.set()
