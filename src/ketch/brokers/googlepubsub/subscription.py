"""One member's share of a Pub/Sub subscription: a streaming pull that is kept open."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc.aio
from google.pubsub_v1 import types

from ...broker import Delivery, Outcome, Subscription
from ...errors import BrokerError, BrokerUnavailable, SubscriptionRefused
from .leases import Leases
from .rpcs import FIRST_WAIT, LONGEST_WAIT, PASSING, Code, Rpcs, ended, explain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .config import Config

log = logging.getLogger("ketch.broker")

_Pull: Any = types.StreamingPullRequest.pb()

#: Bytes that the service sends ahead of what was settled.
_MOST_BYTES = 64 * 1024 * 1024

#: Seconds that the service has to end a stream that we have ended.
_GOODBYE = 1.0

#: A stream that lived so many seconds was well: the service ends each after a while.
_WELL = 10.0


class PubSubSubscription(Subscription):
    """A member of a group, or a subscription of its own."""

    def __init__(
        self,
        rpcs: Rpcs,
        config: Config,
        *,
        topic: str,
        path: str,
        prefetch: int,
        create: Callable[[], Awaitable[None]] | None,
        gone: Callable[[PubSubSubscription], Awaitable[None]],
    ) -> None:
        """Describe it.

        Args:
            rpcs: the service.
            config: the broker's options.
            topic: the topic.
            path: the subscription's resource.
            prefetch: how many deliveries may be in hand.
            create: makes the resource anew; None where it must be there.
            gone: called once, at the end of `close`.
        """
        self.path = path
        self._rpcs = rpcs
        self._config = config
        self._topic = topic
        self._limit = self._prefetch = prefetch
        self._create = create
        self._gone = gone
        self._queue: deque[Delivery] = deque()
        self._leases = Leases(rpcs, config, path)  # of what is in the queue, and of what was taken from it
        self._ready = asyncio.Event()
        self._pulling: Any = None
        self._stopped = self._closed = False
        self._failure: BrokerError | None = None
        self._trouble = "the stream isn't open yet"
        self._reopening = False
        self._client_id = uuid4().hex  # by which the service knows the next stream for this one's successor
        self._opened = asyncio.Event()
        self._let_go = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to take; return when the stream is open.

        Raises:
            BrokerError: it is refused, or isn't open in time.
        """
        self._tasks = [asyncio.create_task(self._pull()), asyncio.create_task(self._leases.extend())]
        for task in self._tasks:
            task.add_done_callback(self._died)
        try:
            async with asyncio.timeout(self._config.timeout):
                await self._opened.wait()
        except TimeoutError:
            self._failure = BrokerUnavailable(f"{self._config.location}: {self.trouble}")
        if self._failure is not None:
            raise self._failure

    @property
    def trouble(self) -> str:
        """Why the service sends nothing."""
        return "" if self._stopped else self._trouble

    # --- taking

    async def receive(self) -> Sequence[Delivery]:
        """Return what the service has sent."""
        while True:
            room = self._limit - (len(self._leases) - len(self._queue))
            if self._queue and room > 0:
                return [self._queue.popleft() for _ in range(min(room, len(self._queue)))]
            if self._failure is not None:
                raise self._failure
            if self._stopped and not self._queue:
                return ()
            self._ready.clear()
            await self._ready.wait()

    async def _pull(self) -> None:
        """Keep a stream open."""
        loop = asyncio.get_running_loop()
        wait = FIRST_WAIT
        while True:
            began = loop.time()
            try:
                await self._stream()
                why = "the service ended the stream"
            except grpc.aio.AioRpcError as error:
                why = error.details() or error.code().name
                if not await self._mended(error):
                    return
            if self._stopped:
                return
            if loop.time() - began >= _WELL or self._reopening:
                wait = FIRST_WAIT  # and nothing is wrong: the service ends every stream some time
                self._reopening = False
                continue
            if not self._trouble:
                log.warning("googlepubsub: lost the stream of %s, trying on: %s", self.path, why)
            self._trouble = f"no stream of {self.path}: {why}"
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - to be apart from others, no secret
            wait = min(wait * 2, LONGEST_WAIT)

    async def _stream(self) -> None:
        """Take what comes over one stream until it ends."""
        pulling = self._pulling = self._rpcs.streaming_pull(self.path, self)
        try:
            await pulling.write(self._wish())
            if self._trouble.startswith("no stream"):
                log.warning("googlepubsub: the stream of %s is back", self.path)
            self._trouble = ""
            self._opened.set()
            while (answer := await pulling.read()) is not grpc.aio.EOF:
                self._queue += self._leases.take(self._topic, answer.received_messages)
                self._ready.set()
        except asyncio.InvalidStateError:  # it had ended before we wrote; reading says why
            await pulling.read()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not this task was cancelled, but the stream, by `_half_close`.
        finally:
            self._pulling = None
            self._let_go.set()
            pulling.cancel()

    def _wish(self) -> Any:
        return _Pull(
            subscription=self.path,
            client_id=self._client_id,
            stream_ack_deadline_seconds=self._config.ack_deadline,
            max_outstanding_messages=self._limit,
            max_outstanding_bytes=_MOST_BYTES,
        )

    async def _mended(self, error: grpc.aio.AioRpcError) -> bool:
        """Tell whether to go on after a stream failed; make the subscription anew if somebody has deleted it."""
        if error.code() in PASSING or error.code() in (Code.OK, Code.DEADLINE_EXCEEDED, Code.CANCELLED):
            return True
        if error.code() is Code.NOT_FOUND and self._create is not None:
            try:
                await self._create()
            except BrokerError as again:
                log.warning("googlepubsub: %s is gone and can't be made anew: %s", self.path, again)
            else:
                log.warning("googlepubsub: %s was gone and is made anew; events of meanwhile are lost", self.path)
            return True
        self._fail(explain(error, self._config.location, f"no events of {self._topic}", SubscriptionRefused))
        return False

    def _died(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            failure = BrokerError(f"{self._config.location}: no events of {self._topic}: {error!r}")
            failure.__cause__ = error
            self._fail(failure)

    def _fail(self, error: BrokerError) -> None:
        self._failure = error
        self._trouble = str(error)
        self._ready.set()
        self._opened.set()

    # --- settling

    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Acknowledge, or end the lease now or after a while, in whole seconds."""
        done, again = self._leases.forget(settled)
        self._ready.set()
        await self._leases.settle(done, again)

    async def limit(self, unsettled: int) -> None:
        """Take so many ahead from now on; the service is told with the next stream, which begins at once."""
        before, self._limit = self._limit, max(1, min(unsettled, self._prefetch))
        self._ready.set()
        if self._limit != before and self._pulling is not None:
            self._reopening = True
            await self._half_close()

    # --- the end

    async def stop(self) -> None:
        """Take no more from the service; what is on its way still comes."""
        if self._stopped:
            return
        self._stopped = True
        self._ready.set()
        if self._tasks:
            await self._half_close()
            await ended(self._tasks.pop(0))
        self._ready.set()

    async def _half_close(self) -> None:
        """Have the stream end, with what is on its way read."""
        pulling = self._pulling
        if pulling is None or pulling.done():
            return
        try:
            async with asyncio.timeout(_GOODBYE):
                await pulling.done_writing()
                while self._pulling is pulling:
                    await self._news()
        except (TimeoutError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pulling.cancel()  # what it sends from now on comes again, after its lease

    async def _news(self) -> None:
        self._let_go.clear()
        await self._let_go.wait()

    async def close(self) -> None:
        """Give back what was not settled."""
        if self._closed:
            return
        self._closed = True
        await self.stop()
        for task in self._tasks:
            await ended(task)
        self._queue.clear()
        self._ready.set()
        self._rpcs.leave(self)
        await self._leases.give_back()
        await self._gone(self)
