"""Transport `memory`: calls within one process and event loop, without sockets, as tests want them.

    memory
    memory://world-1        listeners of one name are not seen under another

It keeps the whole contract: bytes cross, nothing else does; messages are bounded, streams push back, deadlines,
cancellation, statuses and stopping are as over gRPC. Options: `max_message_size` in bytes.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self
from weakref import WeakKeyDictionary

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
from ..grpc.metadata import NONE, collect, fields
from ..transport import MAX_MESSAGE_SIZE, Channel, Listener, Request, Route, Stream, Transport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ..url import Url

log = logging.getLogger("ketch.memory")

#: Bytes that wait in one direction of a stream before its sender does.
_WINDOW: Final = 65_536
#: What a message takes besides its bytes, so that empty ones are bounded too.
_OVERHEAD: Final = 5
#: Seconds for cancelled handlers to end.
_LAST: Final = 1.0

_numbers = itertools.count(1)
#: One namespace for all transports of an event loop: (name, address) -> listener.
_listeners: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], _MemoryListener]] = WeakKeyDictionary()


class MemoryTransport(Transport):
    """Reaches every listener that a memory transport of the same name made on the same event loop."""

    name: ClassVar[str] = "memory"

    def __init__(self, world: str = "", *, max_message_size: int = MAX_MESSAGE_SIZE) -> None:
        self._world = world
        self._limit = max_message_size

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `memory://name?max_message_size=…`.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        url.only("max_message_size")
        return cls(url.address, max_message_size=int(url.number("max_message_size", MAX_MESSAGE_SIZE)))

    async def listen(self, address: str, routes: Mapping[str, Route]) -> Listener:
        """Serve `routes` under an address; port 0 or "" gets a free one, such as `memory:1`.

        Raises:
            AddressUnavailable: somebody listens there.
        """
        mine = _listeners.setdefault(asyncio.get_running_loop(), {})
        if not address or address.endswith(":0"):
            address = f"memory:{next(_numbers)}"
        key = self._world, address
        if key in mine:
            raise AddressUnavailable(f"can't listen on {address}: another listener of this process does")
        listener = mine[key] = _MemoryListener(address, routes, self._limit, lambda: mine.pop(key, None))
        return listener

    def connect(self, address: str) -> Channel:
        """Return a channel to an address."""
        return _MemoryChannel(self._world, address, self._limit)


class _Exchange:
    """One call, as both sides share it. `outcome` is how it ended: the reply, None for a stream, or a status."""

    def __init__(self, request: Request, limit: int) -> None:
        loop = asyncio.get_running_loop()
        self.request = request
        self.limit = limit
        self.requests = _Pipe(loop)
        self.replies = _Pipe(loop)
        self.trailers: Mapping[str, str] = NONE
        self.outcome: asyncio.Future[bytes | None] = loop.create_future()
        self.task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if request.deadline is not None:
            self._timer = loop.call_later(max(0.0, request.deadline - time.monotonic()), self._expire)

    def _expire(self) -> None:
        self.abandon(DeadlineExceeded("the deadline passed first"))

    def finish(self, reply: bytes | None, trailers: Mapping[str, str]) -> None:
        """End it well; replies that were sent may still be received."""
        if not self.outcome.done():
            self._stop_timer()
            self.trailers = trailers
            self.outcome.set_result(reply)
            self.requests.close(_ended())
            self.replies.close(None)

    def fail(self, error: StatusError, *, keep: bool = True) -> None:
        """End it with a status; what was sent before it may still be received, if `keep`."""
        if not self.outcome.done():
            self._stop_timer()
            self.trailers = error.metadata  # type: ignore[assignment]  # _crossed left only text in it
            self.outcome.set_exception(error)
            self.outcome.exception()  # a stream's caller asks for it by receiving, and may not
            for pipe in (self.requests, self.replies):
                pipe.close(error)
                if not keep:
                    pipe.clear()

    def abandon(self, error: StatusError) -> None:
        """End it at once with a status and cancel the handler."""
        self.fail(error, keep=False)
        if self.task is not None:
            self.task.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class _Pipe:
    """Messages in one direction, bounded; closed with the status that the call ended with, or None."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._bodies: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._error: StatusError | None = None
        self._change: asyncio.Future[None] | None = None

    async def put(self, body: bytes) -> None:
        size = len(body) + _OVERHEAD
        while not self._ended and self._size and self._size + size > _WINDOW:
            await self._wait()
        if self._ended:
            raise self._error or _ended()
        self._bodies.append(body)
        self._size += size
        self._wake()

    async def get(self) -> bytes | None:
        while not self._bodies:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            await self._wait()
        body = self._bodies.popleft()
        self._size -= len(body) + _OVERHEAD
        self._wake()
        return body

    def close(self, error: StatusError | None) -> None:
        if not self._ended or (error is not None and self._error is None):
            self._ended = True
            self._error = error
            self._wake()

    def clear(self) -> None:
        self._bodies.clear()
        self._size = 0

    async def _wait(self) -> None:
        # The one who puts waits for room, the one who gets for a message: never both at a time.
        if self._change is None:
            self._change = self._loop.create_future()
        await asyncio.shield(self._change)

    def _wake(self) -> None:
        change, self._change = self._change, None
        if change is not None:
            change.set_result(None)


class _MemoryStream(Stream):
    """One side of a streaming call."""

    def __init__(self, exchange: _Exchange, *, client: bool) -> None:
        self._exchange = exchange
        self._client = client
        self._in = exchange.replies if client else exchange.requests
        self._out = exchange.requests if client else exchange.replies
        self._said_end = False

    async def send(self, body: bytes) -> None:
        if self._said_end:
            raise _ended()
        _check_size(body, self._exchange.limit)
        await self._out.put(bytes(body))

    async def receive(self) -> bytes | None:
        return await self._in.get()

    async def end(self) -> None:
        if self._client and not self._said_end:
            self._said_end = True
            self._out.close(None)

    def cancel(self) -> None:
        who = "caller" if self._client else "server"
        self._exchange.abandon(Cancelled(f"the {who} gave the call up"))

    @property
    def trailers(self) -> Mapping[str, str]:
        return self._exchange.trailers


class _MemoryListener(Listener):
    """Runs handlers, each in a task of its own."""

    def __init__(self, address: str, routes: Mapping[str, Route], limit: int, forget: Callable[[], object]) -> None:
        self._address = address
        self._routes = routes
        self._limit = limit
        self._forget = forget
        self._running: dict[asyncio.Task[None], _Exchange] = {}

    @property
    def address(self) -> str:
        return self._address

    def accept(self, exchange: _Exchange) -> None:
        """Take a call."""
        request = exchange.request
        route = self._routes.get(request.method)
        if route is None:
            exchange.fail(Unimplemented(f"{request.method} isn't served here"))
            return
        task = asyncio.ensure_future(self._serve(exchange, route))
        exchange.task = task
        self._running[task] = exchange
        task.add_done_callback(self._done)

    async def stop(self, grace: float) -> None:
        self._forget()
        if self._running:
            await asyncio.wait(self._running, timeout=grace)
        late = dict(self._running)
        for exchange in late.values():
            exchange.abandon(Unavailable("the server is stopping"))
        if late:
            await asyncio.wait(late, timeout=_LAST)

    def _done(self, task: asyncio.Task[None]) -> None:
        # Also where the task was cancelled before it first ran.
        exchange = self._running.pop(task)
        exchange.fail(Cancelled("the handler was cancelled"))

    async def _serve(self, exchange: _Exchange, route: Route) -> None:
        request = exchange.request
        try:
            reply = await _run(exchange, route)
            trailers = _crossed_metadata(request.trailers)
            if reply is not None:
                _check_size(reply, self._limit)
            exchange.finish(reply, trailers)
        except StatusError as error:
            exchange.fail(_crossed(error))
        except Exception:
            log.exception("%s: the handler failed", request.method)
            exchange.fail(Unknown("the handler failed; its service's log has the reason"))


class _MemoryChannel(Channel):
    """Calls to one address of one world."""

    def __init__(self, world: str, address: str, limit: int) -> None:
        self._key = world, address
        self._limit = limit
        self._closed = False
        self._calls: set[_Exchange] = set()

    async def unary(
        self,
        method: str,
        body: bytes,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> bytes:
        exchange = self._start(method, content_type, metadata, timeout, bytes(body))
        try:
            reply = await asyncio.shield(exchange.outcome)
        except asyncio.CancelledError:
            exchange.abandon(Cancelled("the caller gave the call up"))
            raise
        _check_size(reply or b"", self._limit)
        return reply or b""

    async def stream(
        self,
        method: str,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Stream:
        return _MemoryStream(self._start(method, content_type, metadata, timeout, b""), client=True)

    async def close(self) -> None:
        self._closed = True
        for exchange in list(self._calls):
            exchange.abandon(Cancelled("the channel was closed"))

    def _start(
        self, method: str, content_type: str, metadata: Mapping[str, str] | None, timeout: float | None, body: bytes
    ) -> _Exchange:
        if self._closed:
            raise Cancelled("the channel was closed")
        _check_size(body, self._limit)
        deadline = None if timeout is None else time.monotonic() + timeout
        crossed = _crossed_metadata(metadata)
        request = Request(method, crossed, content_type, deadline=deadline, peer="memory:client", body=body)
        listener = _listeners.get(asyncio.get_running_loop(), {}).get(self._key)
        if listener is None:
            raise Unavailable(f"{self._key[1]} can't be reached: nobody in this process listens there")
        exchange = _Exchange(request, self._limit)
        self._calls.add(exchange)
        exchange.outcome.add_done_callback(lambda _: self._calls.discard(exchange))
        listener.accept(exchange)
        return exchange


def _run(exchange: _Exchange, route: Route) -> Awaitable[Any]:
    if route.unary is not None:
        return route.unary(exchange.request)
    assert route.stream is not None  # noqa: S101 - a route has exactly one handler
    return route.stream(exchange.request, _MemoryStream(exchange, client=False))


def _ended() -> StatusError:
    return Cancelled("the call has ended; nothing more can be sent")


def _check_size(body: bytes, limit: int) -> None:
    if len(body) > limit:
        raise ResourceExhausted(f"a message of {len(body)} bytes is larger than the limit of {limit}")


def _crossed_metadata(metadata: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return metadata as it would come out of a wire."""
    return collect(fields(metadata)) if metadata else NONE


def _crossed(error: StatusError) -> StatusError:
    """Return a status as it would come out of a wire: the code's own exception, and text in its metadata."""
    metadata = {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for name, value in error.metadata.items()
    }
    try:
        return status_error(error.code, error.message, details=error.details, metadata=_crossed_metadata(metadata))
    except StatusError as broken:
        return broken
