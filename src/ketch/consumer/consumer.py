"""Consumer: one handler's subscription, from start to close."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from ..cancellation import cancelled
from ..errors import BrokerError, NotRunning
from ..retry import RetryPolicy
from .handling import Handling
from .intake import Intake
from .terms import Terms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..broker import Broker
    from ..call import Middleware
    from ..codec import Codecs
    from ..stats import TopicStats
    from ..topic import Topic

T = TypeVar("T")

log = logging.getLogger("ketch.consumer")

#: Seconds that a handler gets to end once it was cancelled, and the broker to take the last settlements.
_CANCEL: Final = 1.0
_SETTLE: Final = 5.0

#: How a lost subscription is made again, without end; and seconds after which it counts as good again.
_RESTART: Final = RetryPolicy(backoff=0.1, longest=15.0)
_STEADY: Final = 60.0


class Consumer(Generic[T]):
    """One handler's subscription to a topic.

    What it guarantees: at most `concurrency` handlers run at a time; with one, events are handled in arrival order,
    with more, those of one key are. A handler that raises is followed up as the retry policy says, nothing else ends.
    A subscription that is lost is made again, with backoff and without end; until then `trouble` says so, and with
    it the service's health. Whatever was taken is handled and settled before `drain` returns, within its grace; the
    rest is given back.
    """

    def __init__(
        self, topic: Topic[T], handler: Callable[[Any], Awaitable[object]], terms: Terms | None = None
    ) -> None:
        self.topic = topic
        self.handler = handler
        self.terms = terms or Terms()
        self.restarts = 0
        self.paused = False
        self._reported = -1
        self._stopping = False
        self._lost = ""
        self._broker: Broker | None = None
        self._handling: Handling[T] | None = None
        self._intake: Intake | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def group(self) -> str | None:
        """Who shares the events."""
        return self.terms.group

    @property
    def name(self) -> str:
        """`module.function` of the handler, for logs and errors."""
        return f"{self.handler.__module__}.{getattr(self.handler, '__qualname__', type(self.handler).__qualname__)}"

    @property
    def handled(self) -> int:
        """Events that the handler has finished with, since the start."""
        return self._handling.stats.handled if self._handling is not None else 0

    @property
    def failed(self) -> int:
        """Tries that failed, since the start."""
        return self._handling.stats.failed if self._handling is not None else 0

    @property
    def stats(self) -> TopicStats | None:
        """What has become of events since the start, None before."""
        return self._handling.stats if self._handling is not None else None

    async def start(self, broker: Broker, codecs: Codecs, middleware: Sequence[Middleware] = ()) -> None:
        """Subscribe and begin to handle.

        Raises:
            BrokerError: the broker refused or can't be reached.
            CapabilityError: it can't give what the topic and the terms ask for.
        """
        self.terms.check(self.topic, broker)
        handling = Handling(self.name, self.topic, self.handler, self.terms, broker, codecs, middleware)
        self._handling = handling
        self._broker = broker
        self._stopping = self.paused = False
        self._lost = ""
        await handling.burial.declare()
        await self._begin(handling)

    async def _begin(self, handling: Handling[T]) -> None:
        handling.resume()
        try:
            await self._subscribe(handling)
        except BaseException:
            await self._give_up_subscription()
            raise
        self._task = asyncio.create_task(self._run(handling), name=f"ketch consumer of {self.topic.name}")

    async def _subscribe(self, handling: Handling[T]) -> None:
        self._intake = intake = await Intake.open(handling, self._open_broker())
        if self._stopping:
            await intake.stop()  # `stop` came when there was none

    async def _run(self, handling: Handling[T]) -> None:
        """Consume; make the subscription again whenever it is lost."""
        failures = 0
        began = time.monotonic()
        while not self._stopping:
            try:
                if self._intake is None:
                    await self._subscribe(handling)
                    self._lost = ""
                    log.warning("%s: subscribed to %s again", self.name, self.topic.name)
                    began = time.monotonic()
                await self._consume()
            except BrokerError as error:
                log.error("%s: lost its subscription to %s: %s", self.name, self.topic.name, error)  # noqa: TRY400 - the trace would tell of ketch, not of the broker
                self._lost = str(error)
            except (Exception, asyncio.CancelledError) as error:
                if cancelled():
                    raise
                # A fault in ketch or a plugin must not leave a service deaf.
                log.exception("%s: handling %s broke off", self.name, self.topic.name)
                self._lost = str(error) or type(error).__name__
            if not self._stopping:
                self.restarts += 1
                failures = 1 if time.monotonic() - began > _STEADY else failures + 1
                await self._give_up_subscription()
                await handling.sleep(_RESTART.delay(failures))

    async def _consume(self) -> None:
        if self._intake is not None:
            await self._intake.run()
        if not self._stopping:
            raise BrokerError("it ended by itself")

    async def _give_up_subscription(self) -> None:
        """End what is left of a subscription."""
        intake, self._intake = self._intake, None
        if intake is not None:
            await intake.give_up()

    @property
    def trouble(self) -> str:
        """Why no event would be handled just now, "" where one would, or where that is wanted."""
        if self.paused:
            return ""
        if self._broker is None or self._task is None or self._task.done():
            return f"{self.name} handles no events of {self.topic.name}"
        if self._intake is None:
            return f"{self.name} has lost its subscription to {self.topic.name}: {self._lost}"
        return self._broker.trouble or self._intake.trouble

    def report_hang(self) -> None:
        """Log if no handler has finished since the last report, though some are running."""
        if self._handling is None:
            return
        finished = self.handled + self.failed
        if self._handling.stats.running and finished == self._reported:
            log.warning(
                "%s: no event of %s has been finished for a while; its handler may hang (timeout= bounds it)",
                self.name,
                self.topic.name,
            )
        self._reported = finished

    async def pause(self, grace: float = 10.0) -> None:
        """Leave the group until `resume`: what was taken is handled within `grace` seconds, the rest given back.

        Where the broker keeps events for the group they wait, or other members take them.

        Raises:
            NotRunning: it wasn't started, or has stopped.
        """
        self._open_broker()
        if not self.paused:
            self.paused = True
            await self.stop()
            await self.drain(grace)
            await self._give_up_subscription()

    async def resume(self) -> None:
        """Come back after `pause`.

        Raises:
            BrokerError: the broker refused or can't be reached; it is still paused.
            NotRunning: it wasn't started, or has stopped.
        """
        self._open_broker()
        if self.paused and self._handling is not None:
            self._stopping = False
            await self._begin(self._handling)
            self.paused = False

    async def stop(self) -> None:
        """Take no more events from the broker.

        Raises:
            KetchError: the broker could not be told.
        """
        self._stopping = True
        if self._handling is not None:
            self._handling.stop()
        if self._intake is not None:
            await self._intake.stop()

    async def drain(self, grace: float) -> None:
        """Let handlers finish what was taken, for at most `grace` seconds; then cancel them. `stop` comes before."""
        task = self._task
        if task is not None:
            _, late = await asyncio.wait({task}, timeout=grace)
            if late:
                left = self._left()
                log.warning(
                    "%s: %d events of %s were not handled within the grace period", self.name, left, self.topic.name
                )
            await self._cancel()
        if self._intake is not None:
            await self._intake.flush(_SETTLE)

    def _left(self) -> int:
        if self._intake is None or self._handling is None:
            return 0
        return self._intake.waiting + self._handling.stats.running

    async def close(self) -> None:
        """Give up the subscription; what was taken and not handled is given back. Closing twice is no error."""
        self._stopping = True
        await self._cancel()
        self._broker = None
        intake, self._intake = self._intake, None
        if intake is not None:
            await intake.close()

    async def _cancel(self) -> None:
        """Cancel the handlers; one that resists is left behind, loudly."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        _, stuck = await asyncio.wait({task}, timeout=_CANCEL)
        if stuck:
            log.error("%s: the handler doesn't let itself be cancelled and is left behind", self.name)
        elif not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: its consumer had ended", self.name, exc_info=error)

    def _open_broker(self) -> Broker:
        if self._broker is None:
            raise NotRunning(f"{self.name} doesn't handle {self.topic.name}: its service isn't running")
        return self._broker
