"""Link: a pair of sockets between a supervisor and one worker.

The worker wishes for sockets and gets them with the answer (SCM_RIGHTS); then it reports, a line of JSON each. That
a line came is the sign that its event loop turns; that the link ended is the sign that the other one has gone.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

import msgspec

from ..errors import AddressUnavailable, ConfigurationError
from .reports import MAX_REPORT, Grant, Report, Wish, decode, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Seconds that a supervisor may take to answer a wish.
_PATIENCE: Final = 10.0
_CHUNK: Final = 65_536


class Link:
    """The supervisor's end."""

    def __init__(self, ours: socket.socket) -> None:
        ours.setblocking(False)  # noqa: FBT003 - as socket has it
        self._socket = ours

    async def read(self) -> AsyncIterator[Report | Wish]:
        """Yield what the worker says, until it ends or says what can't be understood."""
        loop, buffer = asyncio.get_running_loop(), bytearray()
        while len(buffer) <= MAX_REPORT:
            try:
                data = await loop.sock_recv(self._socket, _CHUNK)
            except OSError:
                return  # it has gone; what became of it, its exit code tells
            if not data:
                return
            *lines, rest = (buffer + data).split(b"\n")
            buffer = bytearray(rest)
            for line in lines:
                try:
                    yield decode(bytes(line))
                except msgspec.MsgspecError:
                    return

    def grant(self, address: str, listening: socket.socket) -> None:
        """Hand a socket over."""
        self._answer(Grant(address), [listening.fileno()])

    def refuse(self, why: str) -> None:
        """Say that there is no such socket."""
        self._answer(Grant(error=why), [])

    def close(self) -> None:
        """End it; a worker that still lives stops."""
        self._socket.close()

    def _answer(self, grant: Grant, descriptors: list[int]) -> None:
        try:
            socket.send_fds(self._socket, [encode(grant)], descriptors)
        except OSError:
            return  # it has gone meanwhile


class Supervised:
    """The worker's end.

    Args:
        descriptor: of the socket, inherited.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)

    def wish(self, address: str) -> tuple[str, socket.socket]:
        """Return the socket that all workers serve on `address`, and the address that it has become. Blocks.

        Raises:
            AddressUnavailable: it is taken, not ours, or not allowed.
            ConfigurationError: the supervisor doesn't answer.
        """
        self._socket.settimeout(_PATIENCE)
        try:
            self._socket.sendall(encode(Wish(address)))
            data, descriptors, _, _ = socket.recv_fds(self._socket, _CHUNK, 1)
            grant = msgspec.json.decode(data, type=Grant)
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigurationError(f"the supervisor hands over no socket for {address}: {error}") from error
        if not descriptors:
            raise AddressUnavailable(grant.error)
        listening = socket.socket(fileno=descriptors[0])
        listening.set_inheritable(False)
        return grant.address, listening

    async def report(self, report: Report) -> None:
        """Say how this worker is.

        Raises:
            OSError: the supervisor has gone.
        """
        self._socket.setblocking(False)  # noqa: FBT003 - as socket has it
        await asyncio.get_running_loop().sock_sendall(self._socket, encode(report))

    async def wait(self) -> None:
        """Return when the supervisor has gone."""
        self._socket.setblocking(False)  # noqa: FBT003 - as socket has it
        try:
            while await asyncio.get_running_loop().sock_recv(self._socket, _CHUNK):
                pass
        except OSError:
            return
