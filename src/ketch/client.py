"""Client: from a stub to an instance of the service, over a connection that is kept."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from . import settings
from .call import Call, compose
from .calling.attempts import USUAL, CallOptions
from .calling.calls import Calling
from .calling.optioned import Optioned, Outgoing
from .conversation import Conversation, Opened
from .options import Options, build
from .rpc import Caller, Cardinality, Method, ReplyStream, Stub
from .topic import Publisher, Topic

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterable, Awaitable, Mapping, Sequence

    from .call import Middleware
    from .policy import CallPolicy
    from .rpc import Metadata, Reply
    from .selector import Candidate

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
        self._calling = Calling(options)
        self._stack = AsyncExitStack()
        self._broker_open = False
        self._opening = asyncio.Lock()

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
            pinned: `broker`, `registry`, `transport`, `policies`, … that code decides.

        Raises:
            ConfigurationError: a setting is unknown or wrong.
        """
        options = build(settings.read(args, environ), {"server_name": name, **pinned})
        return cls(options, middleware=middleware)

    def stub(
        self,
        contract: type[S],
        service: str = "",
        *,
        wait_for_ready: bool = False,
        compress: bool | None = None,
        policy: CallPolicy | None = None,
    ) -> S:
        """Return a stub of a contract.

        Args:
            contract: the generated class.
            service: narrows it down to the instances of one service.
            wait_for_ready: where no instance can be reached, wait for one until the call's deadline instead of failing.
            compress: whether requests are compressed, None as the transport is configured.
            policy: how its calls are made, over what `ketch.toml` and the client's `policies` say; make one and keep
                it, for what is learnt of its calls goes by it.

        Raises:
            ConfigurationError: the policy says what can't be said for one stub.
        """
        if policy is not None:
            policy.check_narrow(f"the policy of a {contract.__name__}")
        options = CallOptions(wait_for_ready=wait_for_ready, compress=compress, policy=policy)
        return contract(self if options == USUAL else Optioned(self.unary, self.stream, options), service)

    async def connect_broker(self) -> None:
        """Connect the broker, unless that was done; a tool that only calls needs none.

        Raises:
            BrokerUnavailable: it can't be reached.
        """
        self._calling.check_running()
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
            timeout = self._calling.plans.find(service, method, options).timeout
        if self._chain is None:
            return self._calling.unary(service, method, request, timeout, metadata, options)
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
        await self._calling.ready(service, timeout)

    async def _unary_through(self, call: Outgoing) -> Any:
        return await (self._chain or self._last)(call)

    async def _last(self, call: Call) -> object:
        if not isinstance(call, Outgoing):
            raise TypeError("a middleware must pass on the call that it was given")
        if call.method.cardinality is Cardinality.UNARY:
            return await self._calling.unary(
                call.service, call.method, call.payload, call.timeout, call.metadata, call.options
            )
        return await self._calling.open(call)

    def candidates(self, service: str) -> tuple[Candidate, ...]:
        """Return what this client knows of the instances that its calls to a service go to, for whoever looks on.

        Empty before the first call to it.
        """
        return self._calling.finder.roster(service).candidates

    async def start(self) -> None:
        """Begin, with plugins that are open already: a service's own client is started so."""
        self._calling.running = True
        self._opening = asyncio.Lock()
        self._stack.push_async_callback(self._calling.close)
        self._calling.finder.start()

    async def stop(self) -> None:
        """Close the channels, and what `start` or `async with` opened. Stopping twice is no error."""
        self._calling.running = False
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
