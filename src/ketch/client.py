"""Client: from a stub to an instance of the service, over a connection that is kept."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from . import context, settings
from .attempts import USUAL, CallOptions, make, ready
from .call import Call, compose
from .codec import JSON, PROTOBUF
from .context import wanted
from .conversation import Conversation, Opened
from .errors import CodecError, Internal, NotRunning, Unreachable
from .finder import Finder
from .optioned import Optioned, Outgoing
from .options import Options, build
from .rpc import Caller, Cardinality, Method, ReplyStream, Stub
from .topic import Publisher, Topic

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterable, Awaitable, Mapping, Sequence

    from .call import Middleware
    from .codec import Decode, Encode
    from .rpc import Metadata, Reply
    from .transport import Channel, Stream

Q = TypeVar("Q")
P = TypeVar("P")
S = TypeVar("S", bound=Stub)
T = TypeVar("T")


class Client(Caller):
    """Calls services that it finds in the registry, and publishes.

    A service has one (`service.client`); a command-line tool makes its own, with `Client.from_env()`. One client
    serves any number of tasks; it keeps one channel to each instance that it calls.
    """

    def __init__(self, options: Options, *, middleware: Sequence[Middleware] = ()) -> None:
        self.options = options
        self._middleware = tuple(middleware)
        self._chain = compose(self._middleware, self._last) if self._middleware else None
        self._finder = Finder(options.registry, options.transport, options.selector)
        self._coders: dict[Method[Any, Any], tuple[Encode, Decode, str]] = {}
        self._stack = AsyncExitStack()
        self._broker_open = False
        self._opening = asyncio.Lock()
        self._running = False

    @classmethod
    def from_env(
        cls,
        args: Sequence[str] | argparse.Namespace = (),
        *,
        name: str | None = None,
        environ: Mapping[str, str] | None = None,
        middleware: Sequence[Middleware] = (),
        **pinned: Any,
    ) -> Self:
        """Make a client from the environment and, if given, command-line arguments; for tools that are no service.

        Args:
            args: arguments without the program's name, or the namespace of a parser that `add_flags` was applied to.
            name: what the tool is called in the events that it publishes; by default what `MICRO_SERVER_NAME` says.
            environ: instead of this process's environment.
            middleware: around each call and each published event.
            pinned: `broker`, `registry`, `transport`, … that code decides.

        Raises:
            ConfigurationError: a setting is unknown or wrong.
        """
        options = build(settings.read(args, environ), {"server_name": name, **pinned})
        return cls(options, middleware=middleware)

    def stub(
        self, contract: type[S], service: str = "", *, wait_for_ready: bool = False, compress: bool | None = None
    ) -> S:
        """Return a stub of a contract.

        Args:
            contract: the generated class.
            service: narrows it down to the instances of one service.
            wait_for_ready: where no instance can be reached, wait for one until the call's deadline instead of failing.
            compress: whether requests are compressed, None as the transport is configured.
        """
        options = CallOptions(wait_for_ready=wait_for_ready, compress=compress)
        return contract(self if options == USUAL else Optioned(self.unary, self.stream, options), service)

    async def connect_broker(self) -> None:
        """Connect the broker, unless that was done; a tool that only calls needs none.

        Raises:
            BrokerUnavailable: it can't be reached.
        """
        self._check_running()
        async with self._opening:
            if not self._broker_open:
                await self.options.broker.open(self.options.site())
                self._stack.push_async_callback(self.options.broker.close)
                self._broker_open = True

    async def publisher(self, topic: Topic[T]) -> Publisher[T]:
        """Return a publisher; the broker is connected at the first.

        Raises:
            BrokerUnavailable: it can't be.
        """
        await self.connect_broker()
        publisher = Publisher(topic)
        publisher.bind(self.options.broker, self.options.codecs, source=self.options.name, middleware=self._middleware)
        return publisher

    def unary(
        self,
        service: str,
        method: Method[Q, P],
        request: Q,
        timeout: float | None,
        metadata: Metadata | None,
        options: CallOptions = USUAL,
    ) -> Reply[P]:
        """Make one call; a stub's method does this. Without a timeout the client's default bounds it."""
        if timeout is None and options.bounded:
            timeout = self.options.request_timeout or None
        if self._chain is None:
            return self._unary(service, method, request, timeout, metadata, options)
        return self._unary_through(Outgoing(service, method, request, timeout, metadata, options))

    def stream(
        self,
        service: str,
        method: Method[Q, P],
        requests: AsyncIterable[Q],
        timeout: float | None,
        metadata: Metadata | None,
        options: CallOptions = USUAL,
    ) -> ReplyStream[P]:
        """Start a streaming call; a stub's method does this. No timeout but what the caller or its deadline says."""

        def open_() -> Awaitable[Opened]:
            return self.open(Outgoing(service, method, requests, timeout, metadata, options))

        return Conversation(method.path, open_, requests)

    async def open(self, call: Outgoing) -> Opened:
        """Start a streaming call for a caller who sends by himself; the call's payload is for middleware only."""
        return cast("Opened", await (self._chain or self._last)(call))

    async def ready(self, service: str, timeout: float | None = None) -> None:
        """Wait until an instance of a service can be reached, and a connection to it is there.

        Raises:
            DeadlineExceeded: none could be within `timeout` seconds.
        """
        self._check_running()
        await ready(self._finder, service, timeout)

    async def _unary(
        self,
        service: str,
        method: Method[Q, P],
        request: Q,
        timeout: float | None,
        metadata: Metadata | None,
        options: CallOptions,
    ) -> P:
        encode, decode, content_type = self._coders.get(method) or self._find_coders(method)
        body = encode(request)
        left = context.current().remaining()
        if left is not None:
            # A handler's own deadline bounds the calls it makes: nobody waits for their answers after it.
            timeout = left if timeout is None else min(left, timeout)
        began = monotonic()
        failed = None
        channel = self._finder.pick(service)
        if channel is not None:
            try:
                reply = await channel.unary(
                    method.path,
                    body,
                    content_type=content_type,
                    metadata=metadata,
                    timeout=timeout,
                    received=wanted(),
                    compress=options.compress,
                )
            except Unreachable as error:
                failed = channel, error
        if channel is None or failed is not None:
            reply = await self._again(service, method, body, content_type, metadata, timeout, options, began, failed)
        try:
            decoded: P = decode(reply)
        except CodecError as error:
            raise Internal(f"{method.path}: the reply is wrong: {error}") from error
        return decoded

    def _again(
        self,
        service: str,
        method: Method[Any, Any],
        body: bytes,
        content_type: str,
        metadata: Metadata | None,
        timeout: float | None,
        options: CallOptions,
        began: float,
        failed: tuple[Channel, Unreachable] | None,
    ) -> Awaitable[bytes]:
        """Make a call that no instance is known for, or that could not be made at the first one."""
        self._check_running()

        def send(channel: Channel, left: float | None) -> Awaitable[bytes]:
            return channel.unary(
                method.path,
                body,
                content_type=content_type,
                metadata=metadata,
                timeout=left,
                received=wanted(),
                compress=options.compress,
            )

        return make(self._finder, service, send, timeout=timeout, began=began, options=options, failed=failed)

    async def _unary_through(self, call: Outgoing) -> Any:
        return await (self._chain or self._last)(call)

    async def _last(self, call: Call) -> object:
        if not isinstance(call, Outgoing):
            raise TypeError("a middleware must pass on the call that it was given")
        if call.method.cardinality is Cardinality.UNARY:
            return await self._unary(call.service, call.method, call.payload, call.timeout, call.metadata, call.options)
        return await self._open_stream(call)

    async def _open_stream(self, call: Outgoing) -> Opened:
        self._check_running()
        encode, decode, content_type = self._coders.get(call.method) or self._find_coders(call.method)

        def send(channel: Channel, left: float | None) -> Awaitable[Stream]:
            return channel.stream(
                call.name,
                content_type=content_type,
                metadata=call.metadata,
                timeout=left,
                compress=call.options.compress,
            )

        timeout = self._bound(call.timeout)
        stream = await make(self._finder, call.service, send, timeout=timeout, began=monotonic(), options=call.options)
        return stream, encode, decode

    def _bound(self, timeout: float | None) -> float | None:
        # A handler's own deadline bounds the calls it makes: nobody waits for their answers after it.
        left = context.current().remaining()
        if left is None:
            return timeout
        return left if timeout is None else min(left, timeout)

    def _find_coders(self, method: Method[Any, Any]) -> tuple[Encode, Decode, str]:
        binary = hasattr(method.request, "DESCRIPTOR")
        codec = method.codec or self.options.codecs.find(PROTOBUF if binary else JSON)
        coders = codec.encoder(method.request), codec.decoder(method.reply), codec.content_type
        self._coders[method] = coders
        return coders

    def _check_running(self) -> None:
        if not self._running:
            raise NotRunning("the client is used before it was opened or after it was closed")

    async def start(self) -> None:
        """Begin, with plugins that are open already: a service's own client is started so."""
        self._running = True
        self._opening = asyncio.Lock()
        self._stack.push_async_callback(self._finder.close)
        self._finder.start()

    async def stop(self) -> None:
        """Close the channels, and what `start` or `async with` opened. Stopping twice is no error."""
        self._running = False
        self._broker_open = False
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        try:
            await self._stack.enter_async_context(self.options.registry)
            await self._stack.enter_async_context(self.options.transport)
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
