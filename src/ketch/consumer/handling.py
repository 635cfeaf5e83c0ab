"""Handling: from a delivery to the handler, and what a failure means."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from ..broker import Broker, Delivery, Outcome
from ..call import Call, Kind, compose
from ..cancellation import cancelled
from ..context import Context, current, enter
from ..errors import BrokerError, CodecError, MessageTooLarge, Reject, Retry
from ..expiry import seconds_left
from ..message import ONLY_GROUP
from ..retry import ONCE, RetryPolicy
from ..stats import TopicStats
from .burial import Burial
from .decoding import Decoding

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..call import Middleware
    from ..codec import Codecs
    from ..message import Message
    from ..topic import Topic
    from .terms import Terms

T = TypeVar("T")

log = logging.getLogger("ketch.consumer")

#: How a broker that is away is waited for when it is to take a dead letter.
_BURIAL: Final = RetryPolicy(backoff=0.5, longest=30.0)

#: Why an event is skipped that was published again for one group.
_NOT_OURS: Final = Reject("it is for another group")


class Handling(Generic[T]):
    """Calls one handler, and decides what follows from its errors.

    Attributes:
        invoke: handle one delivery: decode it, enter its context, pass the middleware, call the handler.
        policy: how a failure is followed up.
        stats: what has become of events so far, and how many handlers run just now.
        stopping: whether what is to be tried again is given back instead.
    """

    def __init__(
        self,
        name: str,
        topic: Topic[T],
        handler: Callable[[Any], Awaitable[object]],
        terms: Terms,
        broker: Broker,
        codecs: Codecs,
        middleware: Sequence[Middleware],
    ) -> None:
        self.name = name
        self.topic = topic
        self.terms = terms
        self.settles = broker.capabilities.redelivers
        self.policy = terms.retry or (RetryPolicy() if self.settles else ONCE)
        self.burial = Burial(broker, terms.dead_letters, terms.group, name)
        self.stats = TopicStats(topic.name, terms.group, name)
        self._guarded = self.settles and broker.capabilities.counts
        self._handler = handler
        self.stopping = False
        self._stop = asyncio.Event()
        self.decode: Callable[[Message], T] = Decoding(topic, codecs).decode
        self.call = self._chain(middleware)
        self.invoke = self._straight() if not middleware else self._through
        if topic.lifetime is not None:
            self.invoke = self._timed(self.invoke)

    def stop(self) -> None:
        """Wait for no retry any more: what is to be tried again is given back."""
        self.stopping = True
        self._stop.set()

    def resume(self) -> None:
        """Wait for retries again."""
        self.stopping = False
        self._stop.clear()

    # the way in

    def _straight(self) -> Callable[[Delivery], Awaitable[object]]:
        decode, handler, timeout = self.decode, self._handler, self.terms.timeout
        bounded = handler if timeout is None else self._bounded

        def straight(delivery: Delivery) -> Awaitable[object]:
            message = delivery.message
            payload = decode(message)
            enter(Context(message.topic, None, message, delivery.attempt))
            return bounded(payload)

        return straight

    def _timed(self, invoke: Callable[[Delivery], Awaitable[object]]) -> Callable[[Delivery], Awaitable[object]]:
        def timed(delivery: Delivery) -> Awaitable[object]:
            left = seconds_left(delivery.message)
            if left is None:
                return invoke(delivery)
            if self.expired(delivery, left):
                return _nothing()
            handling = invoke(delivery)  # it has entered the context
            current().deadline = monotonic() + left
            return handling

        return timed

    def expired(self, delivery: Delivery, left: float | None) -> bool:
        """Tell whether an event with so many seconds left is of no use any more, and count it."""
        if left is None or left > 0:
            return False
        self.stats.expired += 1
        log.info("%s: skipped %r, which was of use until %.1f s ago", self.name, delivery.message, -left)
        return True

    def _through(self, delivery: Delivery) -> Awaitable[object]:
        message = delivery.message
        payload = self.decode(message)
        metadata = message.metadata
        enter(Context(message.topic, metadata, message, delivery.attempt))
        return self.call(
            Call(Kind.CONSUME, message.topic, payload, metadata, timeout=self.terms.timeout, message=message)
        )

    def _chain(self, middleware: Sequence[Middleware]) -> Callable[[Call], Awaitable[object]]:
        handler = self._handler if self.terms.timeout is None else self._bounded

        async def last(call: Call) -> object:
            return await handler(call.payload)

        return compose(middleware, last)

    async def _bounded(self, payload: object) -> object:
        async with asyncio.timeout(self.terms.timeout):
            return await self._handler(payload)

    async def attempt(self, delivery: Delivery) -> BaseException | None:
        """Handle a delivery; return what it failed with."""
        try:
            await self.invoke(delivery)
        except asyncio.CancelledError as error:
            if cancelled():
                raise
            return error
        except Exception as error:  # noqa: BLE001 - the border between ketch and the user's code
            return error
        self.stats.handled += 1
        return None

    # what is not for the handler

    def screen(self, delivery: Delivery) -> BaseException | None:
        """Return why a delivery is not to be handled; None where it is. Asked where the broker redelivers."""
        if self._guarded and delivery.attempt > self.policy.deliveries:
            return Reject(
                f"it was delivered {delivery.attempt} times and never settled: it may end the process that handles it"
            )
        only = delivery.message.headers.get(ONLY_GROUP)
        if only is not None and only != self.terms.group:
            return _NOT_OURS
        return None

    # the way out

    def judge(self, delivery: Delivery, error: BaseException) -> Outcome | float | None:
        """Say what is to follow from a failure, which is counted and logged.

        Returns:
            `Outcome.AGAIN` where the broker is to deliver it again, the seconds after which to try again in place, or
            None where it is to be given up.
        """
        self.stats.failed += 1
        delivery.failures += 1
        policy = self.policy
        if isinstance(error, Retry) and policy is ONCE:
            policy = RetryPolicy()
        wait = policy.wait(error, delivery.failures if policy.in_place else delivery.attempt)
        if wait is None:
            self._log_failure(delivery, error)
            return None
        self.stats.retried += 1
        log.warning(
            "%s failed on %r, try %d of %d, the next in %.1f s: %s",
            self.name,
            delivery.message,
            delivery.failures,
            policy.attempts,
            wait,
            str(error) or type(error).__name__,
        )
        if policy.in_place:
            return wait
        delivery.retry_after = wait
        return Outcome.AGAIN

    def _log_failure(self, delivery: Delivery, error: BaseException) -> None:
        if isinstance(error, (CodecError, Reject)):
            log.error("%s can't handle %r: %s", self.name, delivery.message, error)
        else:
            log.error("%s failed on %r", self.name, delivery.message, exc_info=error)

    async def recover(self, delivery: Delivery, error: BaseException) -> Outcome:
        """See a delivery through that has failed, in place: until it is handled, given up or given back."""
        while True:
            verdict = self.judge(delivery, error)
            if verdict is None:
                return await self.give_up(delivery, error)
            if isinstance(verdict, Outcome):
                return verdict
            if not await self.sleep(verdict):
                if not self.settles:
                    log.error("%s: dropped %r, which was to be tried again: it stops", self.name, delivery.message)
                return Outcome.AGAIN
            delivery.attempt += 1
            again = await self.attempt(delivery)
            if again is None:
                return Outcome.DONE
            error = again

    async def give_up(self, delivery: Delivery, error: BaseException) -> Outcome:
        """Put a delivery with the dead letters, however long the broker takes to be back; or give it back."""
        if error is _NOT_OURS:
            return Outcome.DONE
        self.stats.dead += 1
        if self.terms.refused is not None:
            await self.terms.refused(delivery.message, error)
        tries = 0
        while True:
            tries += 1
            try:
                await self.burial.bury(delivery, error)
            except MessageTooLarge:
                log.error(  # noqa: TRY400 - as below
                    "%s: %r is too large for the dead letters, so it comes again; make the broker's limit larger",
                    self.name,
                    delivery.message,
                )
                delivery.retry_after = _BURIAL.longest
                return Outcome.AGAIN
            except BrokerError as refusal:
                log.error("%s: the dead letter of %r was not taken: %s", self.name, delivery.message, refusal)  # noqa: TRY400 - the broker's trace says nothing
            else:
                return Outcome.DONE
            if not await self.sleep(_BURIAL.delay(tries)):
                return Outcome.AGAIN

    async def sleep(self, seconds: float) -> bool:
        """Wait; False when the consumer stops meanwhile."""
        if self.stopping:
            return False
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return True
        return False


async def _nothing() -> None:
    """Stand for the handler of an event that isn't handled."""
