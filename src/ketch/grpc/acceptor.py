"""Acceptor: takes connections from a socket that other processes accept from as well, and leaves them their share.

All of them wake up for a connection. Who has many already steps back for a moment, so that whoever has fewer gets it:
of 32 connections the busiest of four processes has a tenth too many, with the kernel's hash (SO_REUSEPORT) a third, and
where all accept at once up to twice its share. The connections that wait belong to the socket, not to a process: when
one ends, the others take them.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sized

log = logging.getLogger("ketch.grpc")

_BACKLOG: Final = 1024
#: Seconds to step back for each connection that is here already, and for all of them at most.
_STEP: Final = 0.0005
_LONGEST: Final = 0.01
#: Connections taken at a time: one, and one more for so many that are here. So haste grows as the steps stop growing.
_HASTE: Final = 4
#: Seconds to wait when there are no more file descriptors or memory; other errors are of one connection (accept(2)).
_PAUSE: Final = 1.0
_SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Accepts from a listening socket, which it owns: its copy of it, that is; the others' stay open.

    Args:
        listening: bound, maybe listening already.
        protocol: makes the protocol of a connection.
        here: the connections that there are.
    """

    def __init__(self, listening: socket.socket, protocol: Callable[[], asyncio.Protocol], here: Sized) -> None:
        listening.setblocking(False)  # noqa: FBT003 - as socket has it
        listening.listen(_BACKLOG)
        self._socket = listening
        self._protocol = protocol
        self._here = here
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._task = asyncio.create_task(self._run(), name="ketch accepting")

    def close(self) -> None:
        """Take no more; what was taken is seen through."""
        self._closed = True
        _wake(self._ready)

    async def wait_closed(self) -> None:
        """Wait until nothing is accepted any more, a moment after `close`."""
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while not self._closed:
                await self._wait_for_one()
                count = len(self._here)
                if count:
                    await asyncio.sleep(min(count * _STEP, _LONGEST))
                try:
                    await self._take(1 + count // _HASTE)
                except OSError as error:
                    scarce = error.errno in _SCARCE
                    log.log(logging.ERROR if scarce else logging.DEBUG, "a connection wasn't accepted: %s", error)
                    await asyncio.sleep(_PAUSE if scarce else _LONGEST)
        finally:
            self._socket.close()

    async def _wait_for_one(self) -> None:
        self._ready = self._loop.create_future()
        self._loop.add_reader(self._socket, _wake, self._ready)
        try:
            await self._ready
        finally:
            self._loop.remove_reader(self._socket)

    async def _take(self, count: int) -> None:
        for _ in range(count):
            if self._closed:
                return
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return  # another process was faster, or the client has gone
            connection.setblocking(False)  # noqa: FBT003 - as above
            try:
                await self._loop.connect_accepted_socket(self._protocol, connection)
            except OSError:
                connection.close()  # the client has gone already


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
