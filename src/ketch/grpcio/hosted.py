"""Hosted: grpcio's method handlers as a ketch servicer, so that a service serves them like its own."""

from __future__ import annotations

import inspect
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from .. import context as here
from ..errors import Code, Internal, StatusError, Unimplemented
from ..rpc import Cardinality, Method, Servicer
from . import threads
from .codec import StockCodec, message_classes
from .context import ServicerContext
from .interceptors import Details, intercepted
from .metadata import pairs
from .replies import written
from .status import number

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from concurrent.futures import Executor

    import grpc
    import grpc.aio

    from ..transport import Request

    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]

log = logging.getLogger("ketch.server")


def servicer(
    contract: str,
    handlers: Mapping[str, Handler],
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    pool: Executor | None,
) -> Servicer:
    """Return a servicer that answers with grpcio's handlers.

    Args:
        contract: full name of the protobuf service.
        handlers: by the rpc's name.
        interceptors: around each call; the first is outermost.
        pool: runs handlers that block, None for the event loop's own.
    """
    hosted = {
        rpc: _Hosted(_method(contract, rpc, handler), handler, interceptors, pool) for rpc, handler in handlers.items()
    }
    members: dict[str, Any] = {f"rpc_{rpc}": staticmethod(one.entry()) for rpc, one in hosted.items()}
    methods = {f"rpc_{rpc}": one.method for rpc, one in hosted.items()}
    class_ = type(contract.rpartition(".")[2], (Servicer,), {"contract": contract, "methods": methods, **members})
    return cast("Servicer", class_())


def _method(contract: str, rpc: str, handler: Handler) -> Method[Any, Any]:
    request, reply = message_classes(contract, rpc)
    if getattr(handler.request_deserializer, "__self__", None) is not request:
        request = reply = object  # it isn't the class's own parser, so another codec would make something else of it
    codec = StockCodec(handler.response_serializer, handler.request_deserializer)
    return Method(contract, rpc, request, reply, _cardinality(handler), codec=codec)


def _cardinality(handler: Handler) -> Cardinality:
    if handler.request_streaming:
        return Cardinality.BIDIRECTIONAL if handler.response_streaming else Cardinality.CLIENT_STREAM
    return Cardinality.SERVER_STREAM if handler.response_streaming else Cardinality.UNARY


class _Hosted:
    """One method: what grpcio's handler does with a call, as ketch calls it."""

    def __init__(
        self,
        method: Method[Any, Any],
        handler: Handler,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        pool: Executor | None,
    ) -> None:
        self.method = method
        self._handler = handler
        self._interceptors = tuple(interceptors)
        self._pool = pool
        self._style = _Style(handler)  # looking at functions takes longer than most of a call

    def entry(self) -> Callable[[Any], Any]:
        """Return what ketch calls with the payload."""
        return self._stream if self.method.cardinality.streams_replies else self._answer

    async def _answer(self, payload: Any) -> Any:
        context = self._context(payload)
        try:
            style = await self._resolve(context) if self._interceptors else self._style
            if style.is_coroutine:
                reply = await style.behavior(payload, context)
            else:
                reply = await threads.answered(self._pool, style.behavior, payload, context)
        except BaseException as error:
            self._fail(context, error)
            raise
        context.finish()
        return reply

    async def _stream(self, payload: Any) -> AsyncGenerator[Any, None]:
        context = self._context(payload)
        try:
            async with aclosing(await self._replies(payload, context)) as replies:
                async for reply in replies:
                    await context.before_reply()
                    yield reply
                    context.after_reply()
        except BaseException as error:
            self._fail(context, error)
            raise
        context.finish()

    async def _replies(self, payload: Any, context: ServicerContext) -> AsyncGenerator[Any, None]:
        style = await self._resolve(context) if self._interceptors else self._style
        if not style.streams:
            return _one(style.behavior, payload, context)
        if style.is_generator:
            return cast("AsyncGenerator[Any, None]", style.behavior(payload, context))
        if style.is_coroutine:
            return written(style.behavior, payload, context)
        return threads.streamed(self._pool, style.behavior, payload, context)

    async def _resolve(self, context: ServicerContext) -> _Style:
        details = Details(self.method.path, tuple(pairs(context.request.metadata)))
        handler = await intercepted(self._interceptors, self._handler, details)
        if handler is None:
            raise Unimplemented(f"{self.method.path} isn't served")
        if handler.response_streaming and not self.method.cardinality.streams_replies:
            raise Internal(f"{self.method.path}: an interceptor made it stream its replies")
        return self._style if handler is self._handler else _Style(handler)

    def _context(self, payload: Any) -> ServicerContext:
        request = cast("Request", here.current())
        return ServicerContext(request, payload if self.method.cardinality.streams_requests else None)

    def _fail(self, context: ServicerContext, error: BaseException) -> None:
        """End the call after its handler raised; an error that isn't a status is for the log."""
        code = number(context.code() or Code.OK)
        expected = isinstance(error, StatusError) or context.done() or not isinstance(error, Exception)
        if code != Code.OK and not expected:
            log.error("%s failed", self.method.path, exc_info=error)
        context.finish(error)


class _Style:
    """How a handler is written."""

    def __init__(self, handler: Handler) -> None:
        found = (handler.stream_stream or handler.stream_unary) if handler.request_streaming else None
        found = found or handler.unary_stream or handler.unary_unary
        self.behavior = cast("Callable[[Any, Any], Any]", found)
        self.streams = handler.response_streaming
        self.is_coroutine = inspect.iscoroutinefunction(found)
        self.is_generator = inspect.isasyncgenfunction(found)


async def _one(
    behavior: Callable[[Any, Any], Any], payload: Any, context: ServicerContext
) -> AsyncGenerator[Any, None]:
    """Yield the one reply of a handler that an interceptor put in a streaming one's place."""
    yield await behavior(payload, context)
