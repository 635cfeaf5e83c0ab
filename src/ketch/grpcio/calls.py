"""Calls: what a channel's methods share: where they go, how they are made, and which are going on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakSet

import grpc.aio

from ..calling.attempts import CallOptions
from ..calling.optioned import Outgoing
from .connectivity import Connectivity
from .context import compresses
from .metadata import mapping

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..conversation import Opened
    from ..rpc import Method
    from .call import RunningCall
    from .target import Target

    C = TypeVar("C", bound=RunningCall)

_CREDENTIALS: Final = (
    "credentials= of a single call can't be used, they live in grpcio's own core; send a token as metadata, or let a "
    "middleware of the client do so"
)


class Calls:
    """The calls of one channel.

    Attributes:
        connectivity: the channel's state, which they tell.
        ongoing: the unary calls that haven't ended.
    """

    def __init__(self, target: Target, compression: grpc.Compression | None) -> None:
        self.connectivity = Connectivity(self.ready)
        self._target = target
        self._usual = CallOptions(compress=compresses(compression), bounded=False)
        self.ongoing: set[RunningCall] = set()
        self._streams: WeakSet[RunningCall] = WeakSet()  # one that nobody holds any more shall be cancelled
        self._closed = False

    def options(
        self,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,  # noqa: FBT001 - handed on by its place
        compression: grpc.Compression | None,
    ) -> CallOptions:
        """Return how a call is made.

        Raises:
            NotImplementedError: what is asked for can't be done.
            UsageError: the channel is closed.
        """
        if self._closed:
            raise grpc.aio.UsageError("Channel is closed.")
        if credentials is not None:
            raise NotImplementedError(_CREDENTIALS)
        if wait_for_ready is None and compression is None:
            return self._usual
        compress = self._usual.compress if compression is None else compresses(compression)
        return CallOptions(wait_for_ready=bool(wait_for_ready), compress=compress, bounded=False)

    def unary(
        self, method: Method[Any, Any], request: Any, timeout: float | None, metadata: Any, options: CallOptions
    ) -> Awaitable[Any]:
        """Make a call."""
        client = self._target.client
        if client is None:
            return self._unary_opened(method, request, timeout, metadata, options)
        said = mapping(metadata) if metadata else None
        return client.unary(self._target.service or method.contract, method, request, timeout, said, options)

    async def _unary_opened(self, method: Method[Any, Any], *rest: Any) -> Any:
        await self._target.open()
        return await self.unary(method, *rest)

    async def open(
        self, method: Method[Any, Any], payload: Any, timeout: float | None, metadata: Any, options: CallOptions
    ) -> Opened:
        """Start a streaming call."""
        client = self._target.client or await self._target.open()
        said = mapping(metadata) if metadata else None
        service = self._target.service or method.contract
        return await client.open(Outgoing(service, method, payload, timeout, said, options))

    async def ready(self) -> None:
        """Connect, waiting until somebody is there.

        Raises:
            NotImplementedError: the channel isn't told which service it is for.
        """
        if not self._target.service:
            raise NotImplementedError("channel_ready() needs to know of which service: channel(client, service='…')")
        self.connectivity.become(grpc.ChannelConnectivity.CONNECTING)
        client = self._target.client or await self._target.open()
        await client.ready(self._target.service)
        self.connectivity.become(grpc.ChannelConnectivity.READY)

    def keep(self, call: C) -> C:
        """Remember a stream as long as somebody else does."""
        self._streams.add(call)
        return call

    async def close(self, grace: float | None) -> None:
        """Take no new calls, wait for those going on, cancel what is left, and close."""
        self._closed = True
        running = [call for call in (*self.ongoing, *self._streams) if not call.done()]
        if grace and running:
            waiting = [asyncio.ensure_future(call.finished()) for call in running]
            _, late = await asyncio.wait(waiting, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        for call in running:
            call.cancel()
        await self.connectivity.close()
        await self._target.close()
