"""Intake: one subscription of a consumer's, from subscribing to leaving."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from ..broker import PREFETCH, Broker, Subscription
from ..errors import BrokerError
from .batches import Batches
from .pace import Pace
from .parallel import Parallel
from .serial import Serial
from .settler import Settler

if TYPE_CHECKING:
    from .handling import Handling

Dispatch: TypeAlias = Serial | Parallel | Batches

log = logging.getLogger("ketch.consumer")

#: Seconds that the broker gets to take the settlements of a subscription that is given up.
_SETTLE: Final = 1.0


class Intake:
    """What takes events from the broker, has them handled, and settles them.

    Args:
        name: the handler's.
        subscription: where events come from.
        settler: None where the broker doesn't redeliver.
        dispatch: hands them to the handler.
    """

    def __init__(self, name: str, subscription: Subscription, settler: Settler | None, dispatch: Dispatch) -> None:
        self._name = name
        self._subscription = subscription
        self._settler = settler
        self._dispatch = dispatch

    @classmethod
    async def open(cls, handling: Handling[Any], broker: Broker) -> Self:
        """Subscribe.

        Raises:
            BrokerError: the broker refused or can't be reached.
        """
        terms, topic = handling.terms, handling.topic.name
        prefetch = terms.prefetch or max(PREFETCH, 2 * (terms.batch or 0) * terms.concurrency, 2 * terms.concurrency)
        subscription = await broker.subscribe(topic, group=terms.group, prefetch=prefetch, since=terms.since)
        settler = pace = None
        if handling.settles:
            settler = Settler(subscription, handling.name)
            if terms.prefetch is None and terms.group is not None and terms.batch is None:
                pace = Pace(terms.concurrency, prefetch)
        dispatch: Dispatch
        if terms.batch is not None:
            dispatch = Batches(handling, subscription, settler)
        elif terms.concurrency == 1:
            dispatch = Serial(handling, subscription, settler, pace)
        else:
            dispatch = Parallel(handling, subscription, settler, pace)
        intake = cls(handling.name, subscription, settler, dispatch)
        try:
            if pace is not None:
                await subscription.limit(pace.limit)
        except BaseException:
            await intake.give_up()
            raise
        return intake

    @property
    def trouble(self) -> str:
        """Why nothing would come just now, "" where something would."""
        return self._subscription.trouble

    @property
    def waiting(self) -> int:
        """How many events were taken and not begun."""
        waiting = self._dispatch.waiting
        return waiting if isinstance(waiting, int) else len(waiting)

    async def run(self) -> None:
        """Handle what comes until the subscription ends.

        Raises:
            BrokerError: it is lost.
        """
        await self._dispatch.run()

    async def stop(self) -> None:
        """Take no more events.

        Raises:
            KetchError: the broker could not be told.
        """
        await self._subscription.stop()

    async def flush(self, timeout: float) -> None:
        """Wait until what was handled is settled, `timeout` seconds at most."""
        if self._settler is not None:
            await self._settler.flush(timeout)

    async def give_up(self) -> None:
        """Leave, though the subscription may be lost: whatever comes of it is only told."""
        await self.flush(_SETTLE)
        try:
            await self.close()
        except BrokerError as error:
            log.warning("%s: leaving its subscription failed: %s", self._name, error)
        except Exception:
            # A plugin's fault must not keep the consumer from subscribing anew.
            log.exception("%s: leaving its subscription failed", self._name)

    async def close(self) -> None:
        """Leave; what was taken and not settled is given back.

        Raises:
            BrokerError: the broker could not be told.
        """
        if self._settler is not None:
            await self._settler.close()
        await self._subscription.close()
