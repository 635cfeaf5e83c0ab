"""Events on their way to one topic: those that are published at the same time share a request."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc.aio
from google.pubsub_v1 import types

from ...errors import BrokerError, BrokerUnavailable
from .rpcs import Code, Rpcs, explain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_PublishRequest: Any = types.PublishRequest.pb()

#: What one request takes at most: messages, and bytes of their bodies and headers.
_MOST = 1000
_MOST_BYTES = 9_900_000

#: Requests on their way at a time. Those with keys go one after the other, which is what keeps their order.
_WIDTH = 4

#: Bytes that a message's own length takes at most in a request.
_FRAME = 8


class Lane:
    """The way of one topic's events, with keys or without."""

    def __init__(self, rpcs: Rpcs, path: str, create: Callable[[], Awaitable[None]] | None, timeout: float) -> None:
        """Describe it.

        Args:
            rpcs: the service.
            path: the topic's resource.
            create: makes the topic; None where it must be there.
            timeout: seconds for a request.
        """
        self._rpcs = rpcs
        self._path = path
        self._create = create
        self._timeout = timeout
        self._waiting: dict[bool, deque[tuple[Any, asyncio.Future[None]]]] = {True: deque(), False: deque()}
        self._sending: dict[bool, set[asyncio.Task[None]]] = {True: set(), False: set()}
        self._woken = {True: False, False: False}

    async def publish(self, message: Any) -> None:
        """Send a message of Pub/Sub's; return when the service has it.

        Raises:
            BrokerError: it hasn't, as far as we know.
        """
        loop = asyncio.get_running_loop()
        taken: asyncio.Future[None] = loop.create_future()
        keyed = bool(message.ordering_key)
        self._waiting[keyed].append((message, taken))
        if not self._woken[keyed]:
            # At the end of this turn of the loop: who publishes in the same turn comes along.
            self._woken[keyed] = True
            loop.call_soon(self._wake, keyed)
        await taken

    def _wake(self, keyed: bool) -> None:  # noqa: FBT001 - which of the two queues
        self._woken[keyed] = False
        waiting, sending = self._waiting[keyed], self._sending[keyed]
        width = 1 if keyed else _WIDTH
        while waiting and len(sending) < width:
            batch = _next(waiting)
            if batch:
                task = asyncio.get_running_loop().create_task(self._send(batch))
                sending.add(task)
                task.add_done_callback(partial(self._sent, keyed))

    def _sent(self, keyed: bool, task: asyncio.Task[None]) -> None:  # noqa: FBT001 - which of the two queues
        self._sending[keyed].discard(task)
        self._wake(keyed)

    async def _send(self, batch: list[tuple[Any, asyncio.Future[None]]]) -> None:
        failure: BrokerError | None = None
        try:
            await self._request(_PublishRequest(topic=self._path, messages=[message for message, _ in batch]))
        except grpc.aio.AioRpcError as error:
            if error.code() is Code.INVALID_ARGUMENT and len(batch) > 1:
                for one in batch:  # only one may be at fault
                    await self._send([one])
                return
            failure = explain(error, self._path, "publishing failed")
            if isinstance(failure, BrokerUnavailable):
                self._refuse(failure)
        except BrokerError as error:
            failure = error
        except asyncio.CancelledError:
            failure = BrokerUnavailable(f"{self._path}: the broker was closed before it had the event")
        for _, taken in batch:
            if not taken.done():
                if failure is None:
                    taken.set_result(None)
                else:
                    taken.set_exception(failure)

    async def _request(self, request: Any) -> None:
        try:
            await self._rpcs.call(self._rpcs.publish, request, "topic", self._path, self._timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() is not Code.NOT_FOUND or self._create is None:
                raise
            await self._create()
            await self._rpcs.call(self._rpcs.publish, request, "topic", self._path, self._timeout)

    def _refuse(self, failure: BrokerError) -> None:
        """Fail what waits: it has waited as long as that which couldn't be sent."""
        for waiting in self._waiting.values():
            while waiting:
                _, taken = waiting.popleft()
                if not taken.done():
                    taken.set_exception(failure)

    async def close(self) -> None:
        """Send what waits."""
        while any(self._waiting.values()) or any(self._sending.values()):
            tasks = self._sending[True] | self._sending[False]
            if tasks:
                await asyncio.wait(tasks)
            else:
                await asyncio.sleep(0)


def _next(waiting: deque[tuple[Any, asyncio.Future[None]]]) -> list[tuple[Any, asyncio.Future[None]]]:
    """Return what goes into the next request; who gave up waiting is left out."""
    batch: list[tuple[Any, asyncio.Future[None]]] = []
    size = 0
    while waiting and len(batch) < _MOST:
        message, taken = waiting[0]
        length = message.ByteSize() + _FRAME
        if batch and size + length > _MOST_BYTES:
            break
        waiting.popleft()
        if not taken.done():
            batch.append((message, taken))
            size += length
    return batch
