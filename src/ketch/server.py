"""Server: a contract's methods to the routes that a transport serves."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, closing
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .call import Call, Kind, compose
from .context import enter
from .errors import (
    Code,
    CodecError,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    StatusError,
    Unimplemented,
    Unknown,
)
from .stats import Stats
from .transport import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .call import Middleware, Next
    from .codec import Codecs, Decode, Encode
    from .rpc import Method, Servicer
    from .stats import MethodStats
    from .transport import Request, Stream

log = logging.getLogger("ketch.server")

#: Content types remembered for one method; a caller that makes types up must not fill the memory.
_CONTENT_TYPES = 16


def routes(
    servicer: Servicer, codecs: Codecs, middleware: Sequence[Middleware] = (), stats: Stats | None = None
) -> dict[str, Route]:
    """Return the routes of a servicer, by method path. What they serve is counted in `stats`."""
    stats = stats or Stats()
    return {
        method.path: _Serving(method, getattr(servicer, name), codecs, middleware, stats.method(method.path)).route()
        for name, method in servicer.methods.items()
    }


class _Serving:
    """One method being served: decode, middleware, handler, encode; errors become statuses here."""

    def __init__(
        self,
        method: Method[Any, Any],
        handler: Callable[[Any], Any],
        codecs: Codecs,
        middleware: Sequence[Middleware],
        stats: MethodStats,
    ) -> None:
        self._stats = stats
        self._method = method
        self._handler = handler
        self._codecs = codecs
        self._coders: dict[str, tuple[Decode, Encode]] = {}
        self._chain: Next | None = compose(middleware, self._answer) if middleware else None

    def route(self) -> Route:
        cardinality = self._method.cardinality
        if not cardinality.streams_requests and not cardinality.streams_replies:
            return Route(unary=self._unary)
        return Route(stream=self._stream)

    async def _unary(self, request: Request) -> bytes:
        stats, began = self._stats, perf_counter()  # counted in place, here and below: a call more would cost more
        stats.running += 1
        try:
            decode, encode = self._coders.get(request.content_type) or self._find(request.content_type)
            payload = _read(self._method, decode, request.body)
            enter(request)
            if self._chain is None:
                reply = await self._handler(payload)
            else:
                reply = await self._chain(self._call(request, payload))
            return self._write(encode, reply)
        except StatusError as error:
            stats.fail(error.code.name)
            raise
        except Exception as error:
            raise self._status(error) from error
        except BaseException:
            stats.fail(Code.CANCELLED.name)
            raise
        finally:
            stats.running -= 1
            stats.calls += 1
            stats.seconds += perf_counter() - began

    async def _stream(self, request: Request, stream: Stream) -> None:
        stats, began = self._stats, perf_counter()
        stats.running += 1
        try:
            await self._converse(request, stream)
        except StatusError as error:
            stats.fail(error.code.name)
            raise
        except Exception as error:
            raise self._status(error) from error
        except BaseException:
            stats.fail(Code.CANCELLED.name)
            raise
        finally:
            stats.running -= 1
            stats.calls += 1
            stats.seconds += perf_counter() - began

    async def _converse(self, request: Request, stream: Stream) -> None:
        decode, encode = self._coders.get(request.content_type) or self._find(request.content_type)
        enter(request)
        request.begin = stream.begin
        with closing(_Requests(self._method, stream, decode)) as requests:
            many = self._method.cardinality.streams_requests
            payload = requests if many else await _only(self._method, requests, ends=stream.ends)
            chain = self._chain or self._answer
            result: Any = await chain(self._call(request, payload))
            if not self._method.cardinality.streams_replies:
                await stream.send(self._write(encode, result))
                return
            async with aclosing(result):
                async for reply in result:
                    await stream.send(self._write(encode, reply))

    async def _answer(self, call: Call) -> object:
        result = self._handler(call.payload)
        return result if self._method.cardinality.streams_replies else await result

    def _call(self, request: Request, payload: object) -> Call:
        left = None if request.deadline is None else max(0.0, request.deadline - time.monotonic())
        return Call(Kind.SERVE, self._method.path, payload, dict(request.metadata), timeout=left)

    def _find(self, content_type: str) -> tuple[Decode, Encode]:
        method = self._method
        try:
            codec = self._codecs.find(content_type)
            if method.codec is not None and method.codec.content_type == codec.content_type:
                codec = method.codec
            coders = codec.decoder(method.request), codec.encoder(method.reply)
        except CodecError as error:
            raise Unimplemented(str(error)) from error
        if len(self._coders) < _CONTENT_TYPES:
            self._coders[content_type] = coders
        return coders

    def _write(self, encode: Encode, reply: object) -> bytes:
        try:
            return encode(reply)
        except CodecError as error:
            log.exception("%s: the handler's reply is wrong", self._method.path)
            raise Internal(f"{self._method.path}: the handler's reply is of the wrong type") from error

    def _status(self, error: Exception) -> StatusError:
        """Count a failure and return what the caller is told: nothing of our insides. The log has the rest."""
        path = self._method.path
        log.error("%s failed", path, exc_info=error)
        told: StatusError = Unknown(f"{path}: the handler failed; its service's log has the reason")
        if isinstance(error, TimeoutError):
            told = DeadlineExceeded(f"{path}: timed out in its handler")
        self._stats.fail(told.code.name)
        return told


def _read(method: Method[Any, Any], decode: Decode, body: bytes) -> Any:
    try:
        return decode(body)
    except CodecError as error:
        raise InvalidArgument(f"{method.path}: {error}") from error


class _Requests(AsyncIterator[Any]):
    """A call's requests, in order. No generator: a handler may return while a task of its own waits here."""

    def __init__(self, method: Method[Any, Any], stream: Stream, decode: Decode) -> None:
        self._method = method
        self._stream = stream
        self._decode = decode
        self._closed = False

    async def __anext__(self) -> Any:
        if self._closed:
            raise StopAsyncIteration
        try:
            body = await self._stream.receive()
        except StatusError:
            if self._closed:
                raise StopAsyncIteration from None
            raise
        if body is None:
            raise StopAsyncIteration
        return _read(self._method, self._decode, body)

    def close(self) -> None:
        """Give no more: the handler has ended."""
        self._closed = True


async def _only(method: Method[Any, Any], requests: _Requests, *, ends: bool) -> Any:
    payload = await anext(requests, None)
    if payload is None:
        raise Unimplemented(f"{method.path} takes one request, none came")
    if ends and await anext(requests, None) is not None:
        raise Unimplemented(f"{method.path} takes one request, more came")
    return payload
