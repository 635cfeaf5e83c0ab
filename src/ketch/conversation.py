"""Conversation: a streaming call on the client's side, requests going out while replies come in."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from .errors import CodecError, Internal, StatusError
from .rpc import One, ReplyStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Mapping

    from .codec import Decode, Encode
    from .transport import Stream

P = TypeVar("P")


class Opened(NamedTuple):
    """A streaming call that was begun.

    Attributes:
        stream: it.
        encode, decode: of its messages.
        again: begins the call once more after an error, elsewhere; raises the error where that could do harm.
    """

    stream: Stream
    encode: Encode
    decode: Decode
    again: Callable[[StatusError], Awaitable[Opened]]


class Conversation(ReplyStream[P], Generic[P]):
    """The replies of one streaming call. It is opened when the first reply is asked for.

    The requests are sent by a task of their own, which ends with the call; an error in the requests' iterator cancels
    the call and is raised to whoever asks for the next reply.
    """

    def __init__(self, path: str, open_: Callable[[], Awaitable[Opened]], requests: AsyncIterable[Any]) -> None:
        self._path = path
        self._open = open_
        self._requests = requests
        self._stream: Stream | None = None
        self._again: Callable[[StatusError], Awaitable[Opened]]
        self._decode: Decode
        self._sender: asyncio.Task[None] | None = None
        self._ended = False
        self._replied = False

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the server sent ahead of its first reply."""
        return {} if self._stream is None else self._stream.metadata

    @property
    def trailers(self) -> Mapping[str, str]:
        """What the server sent after its last reply."""
        return {} if self._stream is None else self._stream.trailers

    async def __anext__(self) -> P:
        if self._ended:
            raise StopAsyncIteration
        try:
            return await self._next()
        except BaseException:
            await self._finish()
            raise

    async def _next(self) -> P:
        while True:
            stream = self._stream or await self._begin(self._open)
            try:
                body = await stream.receive()
                break
            except StatusError as error:
                self._raise_own_failure()
                if self._replied or not isinstance(self._requests, One):
                    raise
                # Its one request can be sent again, and nobody has seen a reply.
                again = partial(self._again, error)
                await self._leave()
                await self._begin(again)
        if body is None:
            raise StopAsyncIteration
        self._replied = True
        try:
            reply: P = self._decode(body)
        except CodecError as error:
            raise Internal(f"{self._path}: a reply is wrong: {error}") from error
        return reply

    async def _begin(self, open_: Callable[[], Awaitable[Opened]]) -> Stream:
        self._stream, encode, self._decode, self._again = await open_()
        self._sender = asyncio.create_task(self._send(self._stream, encode), name=f"ketch requests of {self._path}")
        return self._stream

    async def _send(self, stream: Stream, encode: Encode) -> None:
        try:
            async for request in self._requests:
                await stream.send(encode(request))
            await stream.end()
        except StatusError:
            return  # the call has ended; whoever receives is told why
        except BaseException:
            stream.cancel()
            raise

    def _raise_own_failure(self) -> None:
        sender = self._sender
        if sender is not None and sender.done() and not sender.cancelled() and (error := sender.exception()):
            raise error

    async def aclose(self) -> None:
        """Cancel what is left of the call. No error when it has ended."""
        await self._finish()

    async def _finish(self) -> None:
        self._ended = True
        await self._leave()

    async def _leave(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)  # its error was raised by `_next`
        if not self._ended:
            self._stream = None
