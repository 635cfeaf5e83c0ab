"""StreamingCall: what calls with a stream on either side have in common."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any

import grpc.aio

from ..errors import CodecError, Internal, StatusError
from .call import Ending, RunningCall
from .metadata import stock
from .status import rpc_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..codec import Decode, Encode
    from ..conversation import Opened
    from ..transport import Stream
    from .connectivity import Connectivity

log = logging.getLogger("ketch.client")


class StreamingCall(RunningCall):
    """One call over a stream. It is opened at once; requests from an iterator are sent by a task of its own.

    Attributes:
        fed: the requests are given, so that none can be written.

    Args:
        opening: opens it.
        request: of a call with one request; None where `requests` come, or the caller writes.
        requests: to be sent.
    """

    def __init__(
        self,
        connectivity: Connectivity,
        timeout: float | None,
        opening: Callable[[], Awaitable[Opened]],
        *,
        single: bool = False,
        request: Any = None,
        requests: AsyncIterable[Any] | Iterable[Any] | None = None,
    ) -> None:
        super().__init__(connectivity, timeout)
        self._loop = asyncio.get_running_loop()
        self._stream: Stream | None = None
        self._encode: Encode
        self._decode: Decode
        self._reading = asyncio.Lock()
        self._ahead: list[Any] = []
        self._over = asyncio.Event()
        self._said_all = single
        self.fed = single or requests is not None
        self._request = [request] if single else []
        self._opening = self._loop.create_task(self._open(opening))
        self._feeding = None if requests is None else self._loop.create_task(self._feed(requests))

    # the call

    async def _open(self, opening: Callable[[], Awaitable[Opened]]) -> None:
        try:
            self._stream, self._encode, self._decode, _ = await opening()
            if self.ending is not None:
                self._stream.cancel()
            for request in self._request:
                await self._stream.send(self._encode(request))
                await self._stream.end()
        except asyncio.CancelledError:
            self.end(Ending(cancelled=True))
            raise
        except StatusError as error:
            if self._stream is None:  # else whoever reads is told
                self.end(Ending(error))
        except Exception as error:  # noqa: BLE001 - raised to whoever reads
            self.end(Ending(failure=(error.__cause__ or error) if isinstance(error, CodecError) else error))
            self.stop()

    async def _opened(self) -> Stream | None:
        if not self._opening.done():
            await asyncio.wait((self._opening,))
        if self._stream is None and self.ending is None:  # cancelled before it began
            self.end(Ending(cancelled=True))
        return self._stream

    def end(self, ending: Ending) -> None:
        """Note how the call ended."""
        super().end(ending)
        self._over.set()

    def stop(self) -> None:
        """Stop whatever goes on."""
        if self._stream is not None:
            self._stream.cancel()
        current = asyncio.current_task()
        for task in (self._opening, self._feeding):
            if task is not None and task is not current:
                task.cancel()

    def __del__(self) -> None:
        stream = getattr(self, "_stream", None)
        if stream is not None and self.ending is None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(stream.cancel)  # nobody will ever read it

    # replies

    async def _receive(self) -> Any:
        """Return the next reply, EOF when there are no more; the lock is held."""
        if self._ahead:
            return self._ahead.pop()
        stream = await self._opened()
        if stream is None or self.ending is not None:
            return grpc.aio.EOF
        error: StatusError | None = None
        try:
            body = await stream.receive()
            if body is not None:
                return self._decode(body)
        except StatusError as status:
            error = status
        except CodecError as wrong:
            stream.cancel()
            error = Internal(f"a reply is wrong: {wrong}")
        self.end(Ending(error, metadata=stream.metadata, trailers=stream.trailers))
        if self._feeding is not None:
            self._feeding.cancel()
        return grpc.aio.EOF

    async def next_reply(self) -> Any:
        """Return the next reply, EOF after the last; raise what the call ended with if it isn't OK."""
        try:
            async with self._reading:
                reply = await self._receive()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if reply is grpc.aio.EOF and self.ending is not None:
            self.ending.check()
        return reply

    async def finished(self) -> Ending:
        """Wait until the call has ended. That is only seen after the last reply, so one is looked at in advance."""
        if self.ending is None:
            async with self._reading:
                await self._look_ahead()
        await self._over.wait()
        assert self.ending is not None  # noqa: S101 - what `_over` says
        return self.ending

    async def _look_ahead(self) -> None:
        if self.ending is None and not self._ahead:
            reply = await self._receive()
            if reply is not grpc.aio.EOF:
                self._ahead.append(reply)

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Return what the server sent ahead of its first reply, as soon as it is there."""
        stream = await self._opened()
        if stream is None:
            return grpc.aio.Metadata()
        try:
            return stock(await stream.begun())
        except StatusError:
            return stock(stream.metadata)

    async def wait_for_connection(self) -> None:
        """Wait until the call is on its way.

        Raises:
            AioRpcError: it failed.
        """
        await self._opened()
        if self.ending is not None:
            self.ending.check()

    # requests

    async def _feed(self, requests: AsyncIterable[Any] | Iterable[Any]) -> None:
        try:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    await self._send(request)
            else:
                for request in requests:
                    await self._send(request)
            await self.half_close()
        except (StatusError, asyncio.InvalidStateError, grpc.RpcError):
            return  # the call has ended; whoever reads is told why
        except Exception:
            log.exception("the iterator of a call's requests failed, so the call is cancelled")
            self.cancel()

    async def _send(self, request: Any) -> None:
        stream = await self._opened()
        if self.ending is not None:
            self.ending.check()
            raise asyncio.InvalidStateError("the call has ended")
        if self._said_all:
            raise asyncio.InvalidStateError("nothing can be written after done_writing()")
        if stream is not None:
            await stream.send(self._encode(request))

    async def write_one(self, request: Any) -> None:
        """Send a request; errors as grpc.aio's `write`."""
        try:
            await self._send(request)
        except asyncio.CancelledError:
            self.cancel()
            raise
        except CodecError as wrong:
            raise (wrong.__cause__ or wrong) from None
        except StatusError as error:
            raise rpc_error(error, stock(None)) from error

    async def half_close(self) -> None:
        """Say that no more requests come; saying it again does nothing."""
        if self._said_all:
            return
        self._said_all = True
        stream = await self._opened()
        if stream is not None and self.ending is None:
            await stream.end()
