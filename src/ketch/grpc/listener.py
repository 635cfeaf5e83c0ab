"""GrpcListener: a port, or a socket's path, where gRPC is served."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from .. import transport
from ..errors import AddressUnavailable
from . import gomicro
from .acceptor import Acceptor
from .address import Address, reachable
from .guard import Guard
from .server import ServerWire, Wires

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..transport import Route
    from .credentials import ServerCredentials
    from .tuning import Tuning

_BACKLOG = 1024
#: Seconds that those get who were accepted and have not said hello when a shared listener stops; and between two looks.
_GREETING = 1.0
_GLANCE = 0.01


class GrpcListener(transport.Listener):
    """Listens, and owns the connections it accepted; see `transport.Listener`."""

    def __init__(self, address: Address, server: asyncio.Server | Acceptor, wires: Wires, guard: Guard | None) -> None:
        self._address = address
        self._path = address.path
        self._server = server
        self._wires = wires
        self._guard = guard
        self._stopped: asyncio.Future[None] | None = None

    @classmethod
    async def open(
        cls, text: str, routes: Mapping[str, Route], tuning: Tuning, credentials: ServerCredentials | None = None
    ) -> Self:
        """Listen on an address; over TLS only where there are credentials.

        Raises:
            AddressUnavailable: it is taken, not ours, or not allowed.
            ConfigurationError: the credentials can't be used.
        """
        loop = asyncio.get_running_loop()
        accept, wires, guard = await _door(routes, tuning, credentials)
        wanted = Address.parse(text)
        try:
            if wanted.path:
                await asyncio.to_thread(clear, wanted.path)
                server = await loop.create_unix_server(accept, wanted.path, backlog=_BACKLOG)
                return cls(wanted, server, wires, guard)
            host, port = await _first(wanted)
            server = await loop.create_server(accept, host, port, backlog=_BACKLOG)
        except OSError as error:
            raise AddressUnavailable(f"can't listen on {text}: {error.strerror or error}") from error
        return cls(reachable(wanted.host, server.sockets[0].getsockname()[:2]), server, wires, guard)

    @classmethod
    async def share(
        cls,
        listening: socket.socket,
        routes: Mapping[str, Route],
        tuning: Tuning,
        credentials: ServerCredentials | None = None,
    ) -> Self:
        """Listen on a socket that other processes accept from as well; its path, if it has one, stays theirs.

        Raises:
            ConfigurationError: the credentials can't be used.
        """
        accept, wires, guard = await _door(routes, tuning, credentials)
        bound = listening.getsockname()
        where = Address(path=bound) if isinstance(bound, str) else reachable(bound[0], bound[:2])
        listener = cls(where, Acceptor(listening, accept, wires), wires, guard)
        listener._path = ""
        return listener

    @property
    def address(self) -> str:
        """Where others reach it."""
        return str(self._address)

    async def stop(self, grace: float) -> None:
        """Take no more calls, let those in hand finish, and close; see `transport.Listener`."""
        if self._stopped is None:
            self._stopped = asyncio.ensure_future(self._stop(grace))
        await asyncio.shield(self._stopped)

    async def _stop(self, grace: float) -> None:
        self._server.close()
        if isinstance(self._server, Acceptor):
            await self._server.wait_closed()
            await self._greet()
        self._wires.closed = True
        if self._guard is not None:
            self._guard.close()
        if self._path:
            with suppress(FileNotFoundError):
                os.unlink(self._path)  # noqa: PTH108 - one system call, not worth a thread
        await see_off(self._wires, grace)
        await self._server.wait_closed()

    async def _greet(self) -> None:
        """Let whoever was just accepted say hello: a client that is cut off there takes the whole port for dead."""
        deadline = time.monotonic() + _GREETING
        shaking = self._guard.shaking if self._guard is not None else ()
        while (  # noqa: ASYNC110 - bounded, and once in a process's life
            shaking or any(not wire.known for wire in self._wires)
        ) and time.monotonic() < deadline:
            await asyncio.sleep(_GLANCE)


async def see_off(wires: Wires, grace: float) -> None:
    """Let the calls in hand on some connections finish, for so many seconds at most, and close them."""
    if wires:
        drains = [asyncio.ensure_future(wire.drain()) for wire in wires]
        _, late = await asyncio.wait(drains, timeout=grace)
        for drain in late:
            drain.cancel()
        await asyncio.gather(*drains, return_exceptions=True)
        await asyncio.gather(*(wire.finish() for wire in list(wires)))


async def _door(
    routes: Mapping[str, Route], tuning: Tuning, credentials: ServerCredentials | None
) -> tuple[Callable[[], asyncio.Protocol], Wires, Guard | None]:
    """Return what makes a connection's protocol, the connections that there are, and who watches over TLS."""
    loop = asyncio.get_running_loop()
    wires = Wires()
    shorts = gomicro.short_paths(routes)
    guard = None
    if credentials is not None:
        await asyncio.to_thread(credentials.load)
        guard = Guard(credentials, loop, tuning.handshake_timeout)

    def accept() -> asyncio.Protocol:
        wire = ServerWire(tuning, loop, routes, shorts, wires)
        return wire if guard is None else guard.admit(wire)

    return accept, wires, guard


async def _first(wanted: Address) -> tuple[str, int]:
    """Return the first address that a name stands for, so that port 0 is one port."""
    loop = asyncio.get_running_loop()
    host = wanted.host or "0.0.0.0"  # noqa: S104 - `:8080` means all of them
    found = await loop.getaddrinfo(host, wanted.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    first = found[0][4]
    return str(first[0]), int(first[1])


def clear(path: str) -> None:
    """Remove the socket that a process which died has left.

    Raises:
        OSError: somebody listens there, or what is there is no socket.
    """
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 - with the check below, one idea of a path
            raise OSError(errno.EADDRINUSE, "a file that is no socket is there")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # noqa: PTH108 - as above
            return
    raise OSError(errno.EADDRINUSE, "another process listens there")
