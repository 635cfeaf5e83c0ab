"""Connectivity: a channel's state as grpcio names it, told from how its calls fare."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_State = grpc.ChannelConnectivity


class Connectivity:
    """IDLE until somebody calls or asks to connect; READY when a server was reached, TRANSIENT_FAILURE when none was.

    Connections come and go by themselves beneath, one for each instance, so the state is that of the service, not of
    one connection.

    Args:
        connect: connects, or raises.
    """

    def __init__(self, connect: Callable[[], Awaitable[None]]) -> None:
        self.state = _State.IDLE
        self._connect = connect
        self._change = asyncio.Event()
        self._connecting: asyncio.Task[None] | None = None

    def become(self, state: grpc.ChannelConnectivity) -> None:
        """Change the state; one that is shut down stays so."""
        if state is not self.state and self.state is not _State.SHUTDOWN:
            self.state = state
            self._change.set()
            self._change = asyncio.Event()

    def begin(self) -> None:
        """Connect in the background, unless that goes on or was done."""
        if self.state in (_State.IDLE, _State.TRANSIENT_FAILURE) and self._connecting is None:
            self._connecting = asyncio.create_task(self._try(), name="ketch channel connecting")

    async def wait(self, last: grpc.ChannelConnectivity) -> None:
        """Wait until the state is another than `last`."""
        while self.state is last:
            await self._change.wait()

    async def close(self) -> None:
        """Shut down."""
        self.become(_State.SHUTDOWN)
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)  # told by the state

    async def _try(self) -> None:
        try:
            await self._connect()
        finally:
            self._connecting = None
