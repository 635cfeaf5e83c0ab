"""GrpcChannel: calls to one address, over a connection that is made when needed."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from .. import transport
from ..errors import Cancelled, ConfigurationError, DeadlineExceeded, TransportError, Unreachable
from .address import Address
from .client import ClientWire
from .tunnel import Tunnel

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ..context import ReplyMetadata
    from ..transport import Metadata, Stream
    from .credentials import ClientCredentials
    from .tuning import Tuning

    #: Connects a protocol to the address by other means than a socket; `TransportError` where nobody is there.
    Dial = Callable[[asyncio.Protocol], Coroutine[Any, Any, asyncio.Transport]]

#: How often a call is made again that a server refused without looking at it.
_RETRIES = 2


class GrpcChannel(transport.Channel):
    """One connection, and those before it whose calls are still going on; see `transport.Channel`.

    Args:
        address: where; for people only if there is a `dial`.
        tuning: of connections.
        credentials: for TLS, None for plain text.
        dial: connects by other means than a socket.
    """

    def __init__(
        self, address: str, tuning: Tuning, credentials: ClientCredentials | None = None, dial: Dial | None = None
    ) -> None:
        self._dial = dial
        self._address = address
        self._tuning = tuning
        self._credentials = credentials
        self._current: ClientWire | None = None
        self._wires: set[ClientWire] = set()
        self._connecting: asyncio.Task[ClientWire] | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._closed = False

    async def unary(
        self,
        method: str,
        body: bytes,
        *,
        content_type: str,
        metadata: Metadata | None = None,
        timeout: float | None = None,
        received: ReplyMetadata | None = None,
        compress: bool | None = None,
    ) -> bytes:
        """Make one call and return its reply's body; see `transport.Channel`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        retries = _RETRIES
        while True:
            wire = self._current
            if wire is None or len(wire.connection.streams) >= wire.connection.streams.room:
                wire = await self._wait_for_room(deadline)
                timeout = None if deadline is None else deadline - time.monotonic()
            call = wire.unary(method, body, content_type, metadata, timeout, deadline, received, compress)
            try:
                return await call.reply
            except asyncio.CancelledError:
                call.fail(Cancelled("the caller gave the call up"))
                raise
            except Unreachable:
                retries -= 1
                if not call.refused or retries < 0:
                    raise
                timeout = None if deadline is None else max(0.0, deadline - time.monotonic())

    async def stream(
        self,
        method: str,
        *,
        content_type: str,
        metadata: Metadata | None = None,
        timeout: float | None = None,
        compress: bool | None = None,
    ) -> Stream:
        """Start a streaming call; see `transport.Channel`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        wire = self._current
        if wire is None or len(wire.connection.streams) >= wire.connection.streams.room:
            wire = await self._wait_for_room(deadline)
            timeout = None if deadline is None else deadline - time.monotonic()
        return wire.stream(method, content_type, metadata, timeout, deadline, compress)

    async def ready(self, timeout: float | None = None) -> None:
        """Wait until a call could be sent; see `transport.Channel`."""
        await self._wait_for_room(None if timeout is None else time.monotonic() + timeout)

    async def close(self) -> None:
        """Close the connections; see `transport.Channel`."""
        self._closed = True
        self._wake_all()
        connecting = self._connecting
        if connecting is not None:
            connecting.cancel()
            await asyncio.wait([connecting])
        wires = list(self._wires)
        for wire in wires:
            wire.cancel()
        if wires:
            await asyncio.wait([wire.lost for wire in wires])

    async def _wait_for_room(self, deadline: float | None) -> ClientWire:
        """Return a connection that takes another call, making one if there is none."""
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.monotonic())):
                while True:
                    if self._closed:
                        raise Cancelled("the channel was closed")
                    wire = self._current or await self._connect()
                    if len(wire.connection.streams) < wire.connection.streams.room:
                        return wire
                    if not wire.connection.streams.going:
                        await self._wait_for_change(wire)
                    elif self._current is wire:
                        self._current = None
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._address}: no connection before the deadline") from error

    async def _wait_for_change(self, wire: ClientWire) -> None:
        wire.connection.streams.watched = True
        change = asyncio.get_running_loop().create_future()
        self._waiting.append(change)
        try:
            await change
        finally:
            if change in self._waiting:
                self._waiting.remove(change)

    async def _connect(self) -> ClientWire:
        """Return the new connection; however many calls wait for it, it is one."""
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._open())
            self._connecting.add_done_callback(self._connected)
        try:
            return await asyncio.shield(self._connecting)
        except asyncio.CancelledError:
            if self._closed:
                raise Cancelled("the channel was closed") from None
            raise

    def _connected(self, task: asyncio.Task[ClientWire]) -> None:
        self._connecting = None
        if not task.cancelled() and task.exception() is None:
            self._current = task.result()
            self._on_change(self._current)

    async def _open(self) -> ClientWire:
        seconds = self._tuning.connect_timeout
        socket: asyncio.Transport | None = None
        try:
            if self._dial is None:
                where = Address.parse(self._address)
                wire, protocol = self._speakers(where)
                dialling = _dial(where, protocol)
            else:
                wire = ClientWire(self._tuning, asyncio.get_running_loop(), self._address, self._on_change)
                dialling = self._dial(wire)
            async with asyncio.timeout(seconds):
                socket = await dialling
                await wire.wait_until_ready()
        except TimeoutError as error:
            if socket is not None:
                socket.abort()
            tls = "" if self._credentials is None else ", over TLS"
            raise Unreachable(
                f"{self._address}: no answer in HTTP/2{tls} within {seconds:g} s; is it a gRPC server?"
            ) from error
        except (OSError, TransportError) as error:
            raise Unreachable(f"{self._address} can't be reached: {error}") from error
        except ConfigurationError as error:
            raise Unreachable(f"{self._address} can't be called: {error}") from error
        except BaseException:
            if socket is not None:
                socket.abort()
            raise
        self._wires.add(wire)
        return wire

    def _speakers(self, where: Address) -> tuple[ClientWire, asyncio.Protocol]:
        """Return what speaks HTTP/2, and what speaks to the socket."""
        loop = asyncio.get_running_loop()
        credentials = self._credentials
        if credentials is None:
            wire = ClientWire(self._tuning, loop, self._address, self._on_change)
            return wire, wire
        wire = ClientWire(self._tuning, loop, self._address, self._on_change, credentials)

        def fail(reason: str) -> None:
            wire.fail(Unreachable(f"{self._address}: TLS: {reason}"))

        name = credentials.server_name or where.host or "localhost"
        try:
            return wire, Tunnel(wire, credentials.current(), fail, server_name=name)
        except ValueError as error:
            raise ConfigurationError(f"{name!r} is no name that a certificate could be valid for: {error}") from error

    def _on_change(self, wire: ClientWire) -> None:
        """Look again at what a connection can take; one that is going takes no more calls."""
        if wire.connection.streams.going:
            if self._current is wire:
                self._current = None
            if wire.lost.done():
                self._wires.discard(wire)
        if self._waiting:
            self._wake_all()
        elif not wire.connection.streams.going:
            wire.connection.streams.watched = False

    def _wake_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            if not change.done():
                change.set_result(None)


async def _dial(where: Address, protocol: asyncio.Protocol) -> asyncio.Transport:
    loop = asyncio.get_running_loop()
    if where.path:
        return (await loop.create_unix_connection(lambda: protocol, where.path))[0]
    return (await loop.create_connection(lambda: protocol, where.host, where.port))[0]
