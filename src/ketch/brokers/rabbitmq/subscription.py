"""One subscription: a queue at the server, taken from on a channel of its own.

The channel is opened, and everything declared, again whenever it ends: with the connection, by an error of the server's,
or because the queue was deleted. A subscription whose queue holds events while nothing comes is taken for lost, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from pamqp.commands import Basic, Channel as ChannelMethods, Queue
from pamqp.exceptions import AMQPError

from ...broker import Delivery, Outcome, Subscription
from ...errors import BrokerError
from ...pattern import matches
from .envelope import Envelope
from .link import refused, waits, why
from .names import exact
from .taking import TakingChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pamqp.base import Frame

    from .config import Config
    from .delays import Delays
    from .link import Link
    from .wire import Arrival

log = logging.getLogger("ketch.broker")

#: Seconds after which silence is looked into.
_SILENCE: Final = 30.0


class Source(NamedTuple):
    """What a subscription takes from.

    Attributes:
        topic: the topic or pattern.
        queue: the queue's name.
        frames: what declares it.
        alone: whether it is this subscription's alone.
    """

    topic: str
    queue: str
    frames: Sequence[Frame]
    alone: bool


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
        self._config = config
        self._link = link
        self._delays = delays
        self._source = source
        self._prefetch = self._limit = prefetch
        self._forget = forget
        self._envelope = Envelope(config.exchange, source.topic)
        self._exact = exact(source.topic)
        self._inbox: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._channel: TakingChannel | None = None
        self._consumer = 0
        self._changing = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._waits_for_room = False
        self._stopped = False
        self._closed = False
        self._failure: BrokerError | None = None
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """Why nothing is taken just now."""
        if self._stopped or self._channel is not None:
            return ""
        return self._trouble or f"{self._source.topic}: nothing is taken"

    # --- beginning, and beginning again

    async def open(self) -> None:
        """Begin to take.

        Raises:
            AMQPError, OSError, TimeoutError: as `Channel.call`.
        """
        await self._attach()
        self._keeper = asyncio.create_task(self._keep())

    async def _attach(self) -> None:
        async with asyncio.timeout(self._config.timeout):
            connection = await self._link.connected()
        channel = connection.channel(lambda line, number: TakingChannel(line, number, self._on_arrivals))
        async with self._changing:
            if self._stopped:
                await channel.close(self._config.timeout)
                return
            try:
                await channel.call(
                    ChannelMethods.Open(),
                    *self._source.frames,
                    *self._consume(self._limit),
                    timeout=self._config.timeout,
                )
            except TimeoutError:
                await channel.close(1.0)
                raise
            self._channel = channel
            self._trouble = ""
            self._waits_for_room = False

    def _consume(self, limit: int) -> list[Frame]:
        self._consumer += 1
        return [
            Basic.Qos(prefetch_count=min(limit, 65_535)),
            Basic.Consume(queue=self._source.queue, consumer_tag=f"ketch-{self._consumer}"),
        ]

    async def _keep(self) -> None:
        while not self._stopped:
            channel = self._channel
            if channel is not None:
                reason = await self._lost(channel)
                if self._stopped:
                    return
                self._drop(channel)
                self._trouble = f"{self._source.topic}: nothing is taken: {reason}"
                if self._link.connection is not None:
                    log.warning("rabbitmq: %s, subscribing anew", self._trouble)
            await self._again()

    async def _again(self) -> None:
        for wait in waits():
            try:
                await self._attach()
            except (AMQPError, OSError, TimeoutError) as error:
                if refused(error):
                    self._fail(BrokerError(f"{self._config.location}: {self._source.topic}: {error}"))
                    return
                self._trouble = f"{self._source.topic}: nothing is taken: {why(error)}"
                log.info("rabbitmq: %s", self._trouble)
                await asyncio.sleep(wait)
            else:
                return

    def _fail(self, error: BrokerError) -> None:
        self._failure = error
        self._trouble = str(error)
        self._stopped = True
        self._arrived.set()

    def _drop(self, channel: TakingChannel) -> None:
        """Forget what was taken on a channel that has ended: it comes again."""
        self._channel = None
        self._inbox = deque(delivery for delivery in self._inbox if _place(delivery)[0] is not channel)

    async def _lost(self, channel: TakingChannel) -> str:
        """Wait until nothing more can come on a channel, and say why."""
        while True:
            before = channel.taken
            await asyncio.wait(
                {channel.lost, channel.cancelled}, timeout=_SILENCE, return_when=asyncio.FIRST_COMPLETED
            )
            if channel.lost.done():
                return why(channel.lost.result())
            if channel.cancelled.done():
                await channel.close(self._config.timeout)
                return "its queue was deleted, or has lost its server"
            if channel.taken == before and await self._deaf(channel):
                await channel.close(self._config.timeout)
                return "its queue holds events, and none came"

    async def _deaf(self, channel: TakingChannel) -> bool:
        """Tell whether the queue holds events for us, and none came, twice in a row."""
        before = channel.taken
        for _ in range(2):
            if channel.taken != before or channel.unsettled or self._stopped or self._waits_for_room:
                return False
            try:
                (found,) = await channel.call(
                    Queue.Declare(queue=self._source.queue, passive=True), timeout=self._config.timeout
                )
            except (AMQPError, OSError):
                return False  # then the channel has ended, or the server is slow: the next round will tell
            if not getattr(found, "message_count", 0):
                return False
            await asyncio.sleep(1.0)
        return channel.taken == before

    # --- receiving

    def _on_arrivals(self, channel: TakingChannel, arrivals: list[Arrival]) -> None:
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
            channel.settle([_place(d)[1] for d in deliveries if id(d) not in kept], ())
        return wanted

    async def receive(self) -> Sequence[Delivery]:
        """Return what has come."""
        while not self._inbox:
            if self._failure is not None:
                raise self._failure
            if self._stopped:
                return ()
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
        for channel, (done, again) in by_channel.items():
            self._settle(channel, done, again)
            await channel.room()
        if later:
            await self._give_back(later)
        if self._waits_for_room:
            await self._go_on()

    def _settle(self, channel: TakingChannel, done: list[int], again: list[int]) -> None:
        try:
            channel.settle(done, again)
        except (AMQPError, OSError) as error:
            raise BrokerError(
                f"{self._config.location}: {self._source.topic}: not settled, for {why(error)}; the events come again"
            ) from error

    async def _give_back(self, later: list[Delivery]) -> None:
        """Put events where they wait, and settle those that are there; the others come again at once."""
        results = await asyncio.gather(*(self._delay(delivery) for delivery in later), return_exceptions=True)
        failure: BaseException | None = None
        for delivery, result in zip(later, results, strict=True):
            channel, tag = _place(delivery)
            if result is None:
                self._settle(channel, [tag], [])
            else:
                failure = result
                self._settle(channel, [], [tag])
        if failure is not None:
            raise failure

    async def _delay(self, delivery: Delivery) -> None:
        queue, attempt = self._source.queue, delivery.attempt + 1
        channel, tag = _place(delivery)
        if channel.lost.done() or not channel.holds(tag):
            return  # it comes again by itself
        await self._delays.give_back(delivery.message, queue, attempt, delivery.retry_after)

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
        """Take fewer or more ahead: end the consumer and begin another, for a quorum queue's can't be changed."""
        async with self._changing:
            channel = self._channel
            if self._stopped or unsettled == self._limit:
                return
            self._limit = min(unsettled, self._prefetch)
            if channel is None or channel.lost.done() or self._waits_for_room:
                return
            if await self._ask(channel, Basic.Cancel(f"ketch-{self._consumer}")):
                self._waits_for_room = True
        await self._go_on()

    async def _go_on(self) -> None:
        """Consume again after a change of the limit, as soon as enough is settled that the bound holds."""
        async with self._changing:
            channel = self._channel
            if channel is None or not self._waits_for_room or self._stopped:
                return
            room = self._prefetch - channel.unsettled
            if room >= min(self._limit, max(1, self._prefetch // 4)):
                self._waits_for_room = False
                await self._ask(channel, *self._consume(min(self._limit, room)))

    async def _ask(self, channel: TakingChannel, *methods: Frame) -> bool:
        try:
            await channel.call(*methods, timeout=self._config.timeout)
        except TimeoutError:
            # What the server will make of it is open: the next channel is in order.
            await channel.close(1.0)
        except (AMQPError, OSError) as error:
            log.info("rabbitmq: %s: %s", self._source.topic, why(error))
        else:
            return True
        return False

    async def stop(self) -> None:
        """End the consumer; all that was on its way has come when the server has said so."""
        if self._stopped:
            return
        self._stopped = True
        async with self._changing:
            channel = self._channel
            if channel is not None and not channel.lost.done() and not self._waits_for_room:
                await self._ask(channel, Basic.Cancel(f"ketch-{self._consumer}"))
        self._arrived.set()

    async def close(self) -> None:
        """Close the channel, which gives back what isn't settled."""
        await self.stop()
        if self._closed:
            return
        self._closed = True
        self._forget(self)
        await self._end_tasks()
        self._inbox.clear()
        self._arrived.set()
        channel, self._channel = self._channel, None
        if channel is not None and not channel.lost.done():
            if self._source.alone:
                await self._ask(channel, Queue.Delete(queue=self._source.queue))
            await channel.close(self._config.timeout)

    async def _end_tasks(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})


def _place(delivery: Delivery) -> tuple[TakingChannel, int]:
    """Return the channel that a delivery came on, and its tag."""
    place: tuple[TakingChannel, int] = delivery.raw  # type: ignore[assignment]  # `raw` is ours
    return place
