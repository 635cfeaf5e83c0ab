"""Consumer: takes deliveries, limits, decodes, dispatches and settles. The only place that acknowledges."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .broker import Broker, Delivery, Outcome, Subscription
from .call import Call, Kind, compose
from .codec import JSON, PROTOBUF
from .context import Context, enter
from .errors import BrokerError, CodecError
from .message import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .call import Middleware
    from .codec import Codecs, Decode
    from .message import Message
    from .topic import Topic

T = TypeVar("T")

log = logging.getLogger("ketch.consumer")

#: Deliveries handled before other tasks of the loop get a turn, though no handler awaited anything.
_TURN = 128

#: Seconds that a handler gets to end once it was cancelled.
_CANCEL = 1.0

#: Decoders remembered by content type; a publisher that makes types up must not fill the memory.
_CONTENT_TYPES = 16


class Consumer(Generic[T]):
    """One handler's subscription to a topic.

    What it guarantees: at most `concurrency` handlers run at a time, and with one, events are handled in arrival order;
    a handler that raises, or a body that can't be decoded, is logged and counted and the next event is taken; whatever
    was taken is handled and settled before `drain` returns, within its grace.
    """

    def __init__(
        self,
        topic: Topic[T],
        handler: Callable[[T], Awaitable[None]],
        *,
        group: str | None,
        concurrency: int = 1,
        timeout: float | None = None,
    ) -> None:
        self.topic = topic
        self.group = group
        self.handler = handler
        self.concurrency = concurrency
        self.timeout = timeout
        self.handled = 0
        self.failed = 0
        self._reported = -1
        self._stopping = False
        self._pending: deque[Delivery] = deque()
        self._settled: list[tuple[Delivery, Outcome]] = []
        self._broker: Broker
        self._subscription: Subscription
        self._settles = False
        self._receiving = asyncio.Lock()
        self._decoders: dict[str, Decode] = {}
        self._workers: list[asyncio.Task[None]] = []

    @property
    def name(self) -> str:
        """`module.function` of the handler, for logs and errors."""
        return f"{self.handler.__module__}.{getattr(self.handler, '__qualname__', type(self.handler).__qualname__)}"

    async def start(self, broker: Broker, codecs: Codecs, middleware: Sequence[Middleware] = ()) -> None:
        """Subscribe and begin to handle.

        Raises:
            BrokerError: the broker refused or can't be reached.
            CapabilityError: it can't give the topic's promise.
        """
        self.topic.check(broker)
        self._broker = broker
        self._codecs = codecs
        self._decoders = {}
        self._decoder(self.topic.content_type)
        # A protobuf body of another type often parses, into nonsense, so there the event's type has to fit.
        self._type = self.topic.event_type
        self._binary = self._decoder(PROTOBUF) if hasattr(self.topic.type, "DESCRIPTOR") else None
        self._invoke = self._chain(middleware)
        self._settles = broker.capabilities.redelivers
        self._stopping = False
        self._receiving = asyncio.Lock()
        self._subscription = await broker.subscribe(self.topic.name, group=self.group)
        self._workers = [
            asyncio.create_task(self._work(), name=f"ketch consumer of {self.topic.name} #{n + 1}")
            for n in range(self.concurrency)
        ]

    async def wait(self) -> None:
        """Return when the consumer has been drained; raise what it died of, should it die before.

        Raises:
            BrokerError: the subscription is lost for good.
        """
        if self._workers:
            # Not `gather`: whoever stops waiting must not cancel the workers.
            done, _ = await asyncio.wait(self._workers, return_when=asyncio.FIRST_COMPLETED)
            for worker in done:
                if not worker.cancelled():
                    worker.result()
        if not self._stopping:
            raise BrokerError(f"{self.name}: the subscription to {self.topic.name} ended by itself")

    @property
    def trouble(self) -> str:
        """Why no event would be handled just now, "" where one would."""
        if not self._workers or any(worker.done() for worker in self._workers):
            return f"{self.name} handles no events of {self.topic.name}"
        return self._broker.trouble

    def report_hang(self) -> None:
        """Log if no handler has finished since the last report, though there is something to handle."""
        finished = self.handled + self.failed
        if self._workers and not self._receiving.locked() and finished == self._reported:
            log.warning(
                "%s: no event of %s has been finished for a while; its handler may hang (timeout= bounds it)",
                self.name,
                self.topic.name,
            )
        self._reported = finished

    async def stop(self) -> None:
        """Take no more events from the broker.

        Raises:
            KetchError: the broker could not be told.
        """
        self._stopping = True
        await self._subscription.stop()

    async def drain(self, grace: float) -> None:
        """Let handlers finish what was taken, for at most `grace` seconds; then cancel them. `stop` comes before."""
        _, late = await asyncio.wait(self._workers, timeout=grace) if self._workers else (None, set())
        if late:
            left = len(self._pending) + len(late)
            log.warning(
                "%s: %d events of %s were not handled within the grace period", self.name, left, self.topic.name
            )
            await self._cancel_workers()
        if self._settled:
            await self._flush()

    async def close(self) -> None:
        """Give up the subscription. Closing twice is no error."""
        self._stopping = True
        await self._cancel_workers()
        self._pending.clear()
        await self._subscription.close()

    async def _cancel_workers(self) -> None:
        """Cancel the workers; what they raised before, `wait` has told. One that resists is left behind, loudly."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.cancel()
        if workers:
            _, stuck = await asyncio.wait(workers, timeout=_CANCEL)
            if stuck:
                log.error("%s: the handler doesn't let itself be cancelled and is left behind", self.name)

    async def _work(self) -> None:
        pending, invoke, settles, done = self._pending, self._invoke, self._settles, Outcome.DONE
        turn = 0
        while pending or await self._receive():
            delivery = pending.popleft()
            try:
                await invoke(delivery)
                outcome = done
                self.handled += 1
            except asyncio.CancelledError as error:
                if _cancelled():
                    raise
                outcome = self._failure(delivery, error)
            except Exception as error:  # noqa: BLE001 - the border between ketch and the user's code
                outcome = self._failure(delivery, error)
            if settles:
                await self._settle(delivery, outcome)
            if self._stopping and _cancelled():
                return  # the handler went on to its end all the same; there is no time for another event
            turn += 1
            if turn == _TURN:
                turn = 0
                await asyncio.sleep(0)

    async def _receive(self) -> bool:
        # One worker fetches for all; the others wait here and find the batch.
        async with self._receiving:
            if not self._pending:
                self._pending.extend(await self._subscription.receive())
        return bool(self._pending)

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> None:
        self._settled.append((delivery, outcome))
        if not self._pending or len(self._settled) >= _TURN:
            await self._flush()

    async def _flush(self) -> None:
        batch, self._settled = self._settled, []
        try:
            await self._subscription.settle(batch)
        except BrokerError as error:
            log.warning("%s: %d deliveries could not be settled and will come again: %s", self.name, len(batch), error)

    def _chain(self, middleware: Sequence[Middleware]) -> Callable[[Delivery], Awaitable[object]]:
        handler: Callable[[Any], Awaitable[object]] = self.handler if self.timeout is None else self._bounded
        topic, decode = self.topic.name, self._decode

        if not middleware:

            def straight(delivery: Delivery) -> Awaitable[object]:
                message = delivery.message
                payload = decode(message)
                enter(Context(topic, None, message, delivery.attempt))
                return handler(payload)

            return straight

        async def last(call: Call) -> object:
            return await handler(call.payload)

        chain = compose(middleware, last)

        def through(delivery: Delivery) -> Awaitable[object]:
            message = delivery.message
            payload = decode(message)
            metadata = message.metadata
            enter(Context(topic, metadata, message, delivery.attempt))
            return chain(Call(Kind.CONSUME, topic, payload, metadata, timeout=self.timeout, message=message))

        return through

    async def _bounded(self, payload: T) -> None:
        async with asyncio.timeout(self.timeout):
            await self.handler(payload)

    def _decode(self, message: Message) -> T:
        headers = message.headers
        content_type = headers.get(CONTENT_TYPE) or self._guess(message)
        decode = self._decoders.get(content_type) or self._decoder(content_type)
        if decode is self._binary:
            said = headers.get("ce-type")
            if said and said != self._type:
                raise CodecError(f"the event is a {said}, not a {self._type}")
        payload: T = decode(message.body)
        return payload

    def _guess(self, message: Message) -> str:
        # A plain client of the broker need not say what it sends. No proto3 message starts with "{": that byte is
        # the tag of a group, which proto3 doesn't have.
        return JSON if message.body.startswith(b"{") else self.topic.content_type

    def _decoder(self, content_type: str) -> Decode:
        decode = self._codecs.find(content_type).decoder(self.topic.type)
        if len(self._decoders) < _CONTENT_TYPES:
            self._decoders[content_type] = decode
        return decode

    def _failure(self, delivery: Delivery, error: BaseException) -> Outcome:
        self.failed += 1
        if isinstance(error, CodecError):
            log.error("%s: dropped %r: %s", self.name, delivery.message, error)
            return Outcome.DONE
        log.error("%s failed on %r", self.name, delivery.message, exc_info=error)
        return Outcome.AGAIN


def _cancelled() -> bool:
    """Tell whether this task is being cancelled, and not just a handler that cancelled something of its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
