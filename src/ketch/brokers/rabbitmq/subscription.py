"""One subscription: what came from a queue, and how it is settled."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from pamqp.exceptions import AMQPError

from ...broker import Delivery, Outcome, Subscription
from ...errors import BrokerError
from ...pattern import matches
from .consumption import Consumption
from .envelope import Envelope
from .link import why
from .names import exact

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .config import Config
    from .consumption import Source
    from .delays import Delays
    from .link import Link
    from .taking import TakingChannel
    from .wire import Arrival


class RabbitMQSubscription(Subscription):
    """One member's share of a queue."""

    def __init__(
        self,
        config: Config,
        link: Link,
        delays: Delays,
        source: Source,
        prefetch: int,
        forget: Callable[[RabbitMQSubscription], None],
    ) -> None:
        self._place = f"{config.location}: {source.topic}"
        self._delays = delays
        self._source = source
        self._forget = forget
        self._envelope = Envelope(config.exchange, source.topic)
        self._exact = exact(source.topic)
        self._consumption = Consumption(config, link, source, prefetch, self)
        self._inbox: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._timers: set[asyncio.TimerHandle] = set()
        self._stopped = False
        self._closed = False
        self._failure: BrokerError | None = None

    @property
    def trouble(self) -> str:
        """Why nothing is taken just now."""
        return str(self._failure) if self._failure is not None else self._consumption.trouble

    async def open(self) -> None:
        """Begin to take.

        Raises:
            AMQPError, OSError, TimeoutError: as `Channel.call`.
        """
        await self._consumption.open()

    # --- receiving

    def on_arrivals(self, channel: TakingChannel, arrivals: list[Arrival]) -> None:
        """Take what came."""
        if self._closed:
            return
        open_one = self._envelope.open
        deliveries = [open_one(arrival, (channel, arrival.tag)) for arrival in arrivals]
        if not self._exact:
            deliveries = self._wanted(channel, deliveries)
        self._inbox += deliveries
        self._arrived.set()

    def _wanted(self, channel: TakingChannel, deliveries: list[Delivery]) -> list[Delivery]:
        """Leave out what the binding matches and the topic doesn't mean."""
        topic = self._source.topic
        wanted = [d for d in deliveries if d.message.topic == topic or matches(topic, d.message.topic)]
        if len(wanted) < len(deliveries):
            kept = {id(delivery) for delivery in wanted}
            self._settle(channel, [_place(d)[1] for d in deliveries if id(d) not in kept], [])
        return wanted

    def on_loss(self, channel: TakingChannel) -> None:
        """Forget what was taken on a channel that has ended: it comes again."""
        self._inbox = deque(delivery for delivery in self._inbox if _place(delivery)[0] is not channel)

    def on_failure(self, error: BrokerError) -> None:
        """Hear that nothing will come any more."""
        self._failure = error
        self._arrived.set()

    async def receive(self) -> Sequence[Delivery]:
        """Return what has come."""
        while not self._inbox:
            if self._stopped:
                return ()
            if self._failure is not None:
                raise self._failure
            self._arrived.clear()
            await self._arrived.wait()
        batch, self._inbox = list(self._inbox), deque()
        return batch

    # --- settling

    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Acknowledge, or give back: at once by the server's own means, later through a queue that delays."""
        by_channel: dict[TakingChannel, tuple[list[int], list[int]]] = {}
        later: list[Delivery] = []
        for delivery, outcome in settled:
            channel, tag = _place(delivery)
            done, again = by_channel.setdefault(channel, ([], []))
            if outcome is Outcome.DONE:
                done.append(tag)
            elif self._source.alone:
                self._offer_again(delivery)
            elif delivery.retry_after > 0:
                later.append(delivery)
            else:
                again.append(tag)
        failures = [self._settle(channel, done, again) for channel, (done, again) in by_channel.items()]
        if later:
            failures += await self._give_back(later)
        for channel in by_channel:
            await channel.room()
        if self._consumption.pausing:
            await self._consumption.go_on()
        for failure in failures:
            if failure is not None:
                raise BrokerError(f"{self._place}: not settled, so it comes again: {why(failure)}") from failure

    def _settle(self, channel: TakingChannel, done: list[int], again: list[int]) -> Exception | None:
        """Settle on one channel; return what went wrong, for the other channels' are to be settled all the same."""
        try:
            channel.settle(done, again)
        except (AMQPError, OSError) as error:
            return error
        return None

    async def _give_back(self, later: list[Delivery]) -> list[Exception | None]:
        """Put events where they wait, and settle those that are there; the others come again at once."""
        results = await asyncio.gather(*(self._delay(delivery) for delivery in later))
        failures: list[Exception | None] = list(results)
        for delivery, failed in zip(later, results, strict=True):
            channel, tag = _place(delivery)
            failures.append(self._settle(channel, [], [tag]) if failed else self._settle(channel, [tag], []))
        return failures

    async def _delay(self, delivery: Delivery) -> Exception | None:
        channel, tag = _place(delivery)
        if not channel.lost.done() and channel.holds(tag):  # otherwise it comes again by itself
            attempt, wait = delivery.attempt + 1, delivery.retry_after
            try:
                await self._delays.give_back(delivery.message, self._source.queue, attempt, wait)
            except BrokerError as error:
                return error
        return None

    def _offer_again(self, delivery: Delivery) -> None:
        """Have it come again here: nobody else shares the queue, and only here is it counted."""
        fresh = Delivery(delivery.message, delivery.attempt + 1, delivery.raw)

        def due() -> None:
            self._timers.discard(timer)
            if not self._stopped and not _place(fresh)[0].lost.done():
                self._inbox.append(fresh)
                self._arrived.set()

        timer = asyncio.get_running_loop().call_later(delivery.retry_after, due)
        self._timers.add(timer)

    # --- less, and no more

    async def limit(self, unsettled: int) -> None:
        """Take fewer or more ahead."""
        await self._consumption.limit(unsettled)

    async def stop(self) -> None:
        """Take no more from the server."""
        await self._consumption.stop()
        self._stopped = True
        self._arrived.set()

    async def close(self) -> None:
        """Give back what isn't settled."""
        await self.stop()
        if self._closed:
            return
        self._closed = True
        self._forget(self)
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._inbox.clear()
        self._arrived.set()
        await self._consumption.close()


def _place(delivery: Delivery) -> tuple[TakingChannel, int]:
    """Return the channel that a delivery came on, and its tag."""
    place: tuple[TakingChannel, int] = delivery.raw  # type: ignore[assignment]  # `raw` is ours
    return place
