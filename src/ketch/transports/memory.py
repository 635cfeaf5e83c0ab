"""memory: calls inside one process, with a transport's semantics and no sockets.

Transports of the same URL (`memory://name`) in one process reach each other. Nothing is shared but encoded bytes, so
what works here works over the wire.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextvars import Context
from itertools import count
from typing import TYPE_CHECKING, Any, Self

from ..errors import (
    AddressUnavailable,
    Cancelled,
    DeadlineExceeded,
    ResourceExhausted,
    StatusError,
    Unavailable,
    Unimplemented,
    Unknown,
    status_error,
)
from ..transport import MAX_MESSAGE_SIZE, Channel, Listener, Request, Route, Stream, Transport

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from ..url import Url

log = logging.getLogger("ketch.transport")

#: Messages that a stream buffers each way before its sender waits.
_WINDOW = 16

_worlds: dict[str, dict[str, MemoryListener]] = {}
_ports = count(1)


class MemoryTransport(Transport):
    """Listens and connects within one process."""

    name = "memory"

    def __init__(self, world: str = "", max_message_size: int = MAX_MESSAGE_SIZE) -> None:
        self._world = world
        self._limit = max_message_size

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `memory://name?max_message_size=BYTES`."""
        url.only("max_message_size")
        return cls(url.address, int(url.number("max_message_size", MAX_MESSAGE_SIZE)))

    async def listen(self, address: str, routes: Mapping[str, Route]) -> Listener:
        """Serve under a name: the address itself, or a fresh one when it ends in `:0`."""
        world = _worlds.setdefault(self._world, {})
        if address.endswith(":0"):
            address = f"memory:{next(_ports)}"
        if address in world:
            raise AddressUnavailable(f"{address} is listened on already")
        listener = world[address] = MemoryListener(self._world, address, routes, self._limit)
        return listener

    def connect(self, address: str) -> Channel:
        """Return a channel to an address, whether or not anybody listens yet."""
        return MemoryChannel(self._world, address, self._limit)


class MemoryListener(Listener):
    """A name being listened on, and the handlers that run for it."""

    def __init__(self, world: str, address: str, routes: Mapping[str, Route], limit: int) -> None:
        self._world = world
        self._address = address
        self._routes = routes
        self._limit = limit
        self._calls: set[asyncio.Task[Any]] = set()

    @property
    def address(self) -> str:
        """The name."""
        return self._address

    def route(self, request: Request) -> Route:
        """Return the route of a request that fits the limits.

        Raises:
            StatusError: there is none, or the request is too large.
        """
        _check_size(request.body, self._limit)
        route = self._routes.get(request.method)
        if route is None:
            raise Unimplemented(f"{request.method} isn't served here")
        return route

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a handler as a server would: in a task, and a context, of its own."""
        task = asyncio.create_task(work, context=Context())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    async def stop(self, grace: float) -> None:
        """Refuse new calls, wait for those in hand, cancel what is left."""
        world = _worlds.get(self._world, {})
        if world.get(self._address) is self:
            del world[self._address]
        if not world:
            _worlds.pop(self._world, None)
        if self._calls:
            await asyncio.wait(self._calls, timeout=grace)
        for task in self._calls:
            task.cancel()
        if self._calls:
            await asyncio.wait(self._calls)


class MemoryChannel(Channel):
    """Calls to one name."""

    def __init__(self, world: str, address: str, limit: int) -> None:
        self._world = world
        self._address = address
        self._limit = limit
        self._calls: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def unary(
        self,
        method: str,
        body: bytes,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> bytes:
        """Run the handler in a task and hand its reply on."""
        _check_size(body, self._limit)
        listener = self._listener()
        request = _request(method, metadata, content_type, timeout, body)
        route = listener.route(request)
        task = listener.start(_unary(route, request))
        self._calls.add(task)
        try:
            await asyncio.wait({task}, timeout=timeout)
            if not task.done():
                raise DeadlineExceeded(f"{method}: no reply within {timeout:g} s")
            reply = self._result(task, method)
        finally:
            self._calls.discard(task)
            task.cancel()
        _check_size(reply, self._limit)
        return reply

    def _result(self, task: asyncio.Task[bytes], method: str) -> bytes:
        if task.cancelled():
            raise Cancelled(f"{method}: the channel is closed") if self._closed else Unavailable(f"{method}: {_GONE}")
        error = task.exception()
        if error is not None:
            raise _as_status(error, method)
        return task.result()

    async def stream(
        self,
        method: str,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Stream:
        """Run the handler in a task, a bounded pipe each way."""
        listener = self._listener()
        request = _request(method, metadata, content_type, timeout, b"")
        route = listener.route(request)
        requests, replies = _Pipe(), _Pipe()
        task = listener.start(_converse(route, request, MemoryStream(requests, replies, self._limit)))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        client = MemoryStream(replies, requests, self._limit, task, request)
        task.add_done_callback(lambda task: client.finish(task, closed=self._closed))
        if timeout is not None:
            timer = asyncio.get_running_loop().call_later(timeout, client.expire)
            task.add_done_callback(lambda _: timer.cancel())
        return client

    async def close(self) -> None:
        """Cancel the calls in hand."""
        self._closed = True
        for task in list(self._calls):
            task.cancel()

    def _listener(self) -> MemoryListener:
        if self._closed:
            raise Cancelled(f"{self._address}: the channel is closed")
        listener = _worlds.get(self._world, {}).get(self._address)
        if listener is None:
            raise Unavailable(f"{self._address}: nobody listens")
        return listener


class MemoryStream(Stream):
    """Either end of a streaming call; only the client's has the handler's task."""

    def __init__(
        self,
        inbound: _Pipe,
        outbound: _Pipe,
        limit: int,
        task: asyncio.Task[None] | None = None,
        request: Request | None = None,
    ) -> None:
        self._inbound = inbound
        self._outbound = outbound
        self._limit = limit
        self._task = task
        self._request = request

    async def send(self, body: bytes) -> None:
        """Put one message into the pipe; waits while it is full."""
        _check_size(body, self._limit)
        await self._outbound.put(body)

    async def receive(self) -> bytes | None:
        """Take one message out of the pipe."""
        return await self._inbound.get()

    async def end(self) -> None:
        """Close this side."""
        self._outbound.end()

    def cancel(self) -> None:
        """Cancel the handler, and both pipes with it."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            self._fail(Cancelled("the call was cancelled"))

    def expire(self) -> None:
        """Cancel the call because its deadline passed."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            self._fail(DeadlineExceeded("the deadline passed"))

    def finish(self, task: asyncio.Task[None], *, closed: bool) -> None:
        """Close the client's end as the handler ended."""
        method = self._request.method if self._request is not None else ""
        if task.cancelled():
            self._fail(Cancelled("the channel is closed") if closed else Unavailable(f"{method}: {_GONE}"))
        elif error := task.exception():
            self._fail(_as_status(error, method))
        else:
            self._inbound.end()
            self._outbound.fail(Cancelled(f"{method}: the call has ended"))

    def _fail(self, error: StatusError) -> None:
        self._inbound.fail(error)
        self._outbound.fail(error)

    @property
    def trailers(self) -> Mapping[str, str]:
        """What the handler wanted sent after its replies."""
        return (self._request.trailers if self._request is not None else None) or {}


class _Pipe:
    """Messages one way, at most `_WINDOW` at a time; then its end, or the error that ended it. The first end counts."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._ended = False
        self._error: StatusError | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()

    async def put(self, body: bytes) -> None:
        while len(self._messages) >= _WINDOW and not self._ended:
            self._writable.clear()
            await self._writable.wait()
        if self._ended:
            raise self._error or Cancelled("the call has ended")
        self._messages.append(body)
        self._readable.set()

    async def get(self) -> bytes | None:
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._readable.clear()
            await self._readable.wait()
        self._writable.set()
        return self._messages.popleft()

    def end(self) -> None:
        self._ended = True
        self._readable.set()
        self._writable.set()

    def fail(self, error: StatusError) -> None:
        if not self._ended:
            self._error = error
            self.end()


_GONE = "the server stopped before it replied"


async def _unary(route: Route, request: Request) -> bytes:
    if route.unary is None:
        raise Unimplemented(f"{request.method} streams; this was no streaming call")
    return await route.unary(request)


async def _converse(route: Route, request: Request, stream: MemoryStream) -> None:
    if route.stream is not None:
        await route.stream(request, stream)
    elif route.unary is not None:
        # A unary method is a stream of one message each way, as in gRPC.
        request.body = await stream.receive() or b""
        await stream.send(await route.unary(request))


def _request(
    method: str, metadata: Mapping[str, str] | None, content_type: str, timeout: float | None, body: bytes
) -> Request:
    deadline = None if timeout is None else time.monotonic() + timeout
    return Request(method, dict(metadata or {}), content_type, deadline=deadline, peer="memory", body=body)


def _check_size(body: bytes, limit: int) -> None:
    if len(body) > limit:
        raise ResourceExhausted(f"a message of {len(body)} bytes is over the limit of {limit}")


def _as_status(error: BaseException, method: str) -> StatusError:
    """Return the error as it would arrive over a wire: its status, not its class."""
    if isinstance(error, StatusError):
        return status_error(error.code, error.message, details=error.details, metadata=error.metadata)
    log.error("%s failed", method, exc_info=error)
    return Unknown(f"{method}: the handler failed; its service's log has the reason")
