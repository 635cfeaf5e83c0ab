"""The three kinds of calls with a stream, as grpc.aio gives them to its callers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc.aio

from ..errors import Internal
from .call import Ending
from .streaming import StreamingCall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator

_MIXED: Final = "iterate over the call or use read() and write(), not both"


class _Reads(StreamingCall):
    """Replies come as a stream: read them, or iterate over the call."""

    _iterates: bool | None = None
    _replies: AsyncGenerator[Any, None] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        self._choose(iterates=True)
        if self._replies is None:
            self._replies = self._iterate()
        return self._replies

    async def read(self) -> Any:
        """Return the next reply, `grpc.aio.EOF` after the last.

        Raises:
            AioRpcError: the call ended with another status than OK.
            UsageError: the call was iterated over.
        """
        if self.ending is None:
            self._choose(iterates=False)
        return await self.next_reply()

    async def _iterate(self) -> AsyncGenerator[Any, None]:
        while (reply := await self.next_reply()) is not grpc.aio.EOF:
            yield reply

    def _choose(self, *, iterates: bool) -> None:
        if self._iterates is not None and self._iterates is not iterates:
            raise grpc.aio.UsageError(_MIXED)
        self._iterates = iterates


class _Writes(StreamingCall):
    """Requests go as a stream: write them, unless the call was given an iterator of them."""

    async def write(self, request: Any) -> None:
        """Send a request; waits while the server takes no more.

        Raises:
            AioRpcError: the call has failed.
            UsageError: the call was given an iterator.
            InvalidStateError: `done_writing` was called, or the call has ended.
        """
        self._check_unfed()
        await self.write_one(request)

    async def done_writing(self) -> None:
        """Say that no more requests come. Saying it again does nothing."""
        self._check_unfed()
        await self.half_close()

    def _check_unfed(self) -> None:
        if self.fed:
            raise grpc.aio.UsageError(_MIXED)


class UnaryStreamCall(_Reads, grpc.aio.UnaryStreamCall[Any, Any]):
    """One request, any number of replies."""


class StreamStreamCall(_Writes, _Reads, grpc.aio.StreamStreamCall[Any, Any]):
    """Any number of either."""


class StreamUnaryCall(_Writes, grpc.aio.StreamUnaryCall[Any, Any]):
    """Any number of requests, one reply; await the call for it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._reply: Any = grpc.aio.EOF
        self._conducting = asyncio.create_task(self._conduct())

    async def _conduct(self) -> None:
        async with self._reading:
            self._reply = await self._receive()
            if self._reply is not grpc.aio.EOF and await self._receive() is not grpc.aio.EOF:
                super().end(Ending(Internal("the server sent more than one reply")))
                self.stop()

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            yield from self._conducting.__await__()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self.ending is not None:
            self.ending.check()
        return self._reply

    async def finished(self) -> Ending:
        """Wait until the call has ended."""
        if not self._conducting.done():
            await asyncio.wait((self._conducting,))
        return await super().finished()

    def end(self, ending: Ending) -> None:
        """Note how the call ended; without a reply it didn't end well."""
        if ending.is_ok and self._reply is grpc.aio.EOF:
            missing = Internal("the call ended well, but without its one reply")
            ending = Ending(missing, metadata=ending.metadata, trailers=ending.trailers)
        super().end(ending)

    def stop(self) -> None:
        """Stop whatever goes on."""
        super().stop()
        if asyncio.current_task() is not self._conducting:
            self._conducting.cancel()
