"""Service: a program that serves calls, publishes events and reacts to them. It knows no protocol."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

from . import settings
from .calling.attempts import USUAL, CallOptions
from .calling.optioned import Optioned
from .declarations import Declarations
from .errors import ConfigurationError, NotRunning
from .lifecycle import Lifecycle
from .logs import configure
from .options import Options, build
from .rpc import Caller, Method, ReplyStream, Stub
from .runner import run_until_stopped

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence

    from .broker import Broker
    from .call import Middleware
    from .client import Client
    from .policy import CallPolicy
    from .registry import Registry
    from .rpc import Metadata, Reply
    from .selector import SelectorMaker
    from .transport import Transport

Q = TypeVar("Q")
P = TypeVar("P")
S = TypeVar("S", bound=Stub)


class Service(Declarations, Caller):
    """A named program. Making one does no IO: importing a module that holds one is free.

    What is passed here is pinned; what is left open comes from the command line, the environment, the default.

    Args:
        name: such as `go.micro.srv.user`; its instances are found by it and share events under it.
        version: its version.
        address: what the server listens on: `host:port`, port 0 for a free one, or `unix:/path`.
        broker, registry, transport: a plugin's name, its URL or an object.
        selector: how a call's instance is picked: `least_busy`, `round_robin`, `random`, `consistent_hash`.
        policies: how its calls are made, by service, contract or `contract/Method`; "" for all of them.
        middleware: around all that is published, consumed, requested and served; the first is outermost.
        request_timeout: seconds that a call made by this service may take unless it says otherwise itself.
        grace: seconds that handlers and calls may go on after the service was told to stop.
        metadata: labels of this instance.
    """

    def __init__(
        self,
        name: str,
        *,
        version: str | None = None,
        address: str | None = None,
        broker: str | Broker | None = None,
        registry: str | Registry | None = None,
        transport: str | Transport | None = None,
        selector: str | SelectorMaker | None = None,
        policies: Mapping[str, CallPolicy] | None = None,
        middleware: Sequence[Middleware] = (),
        request_timeout: float | None = None,
        grace: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(name, middleware)
        self._pinned: dict[str, Any] = {
            "server_name": name,
            "server_version": version,
            "server_address": address,
            "broker": broker,
            "registry": registry,
            "transport": transport,
            "selector": selector,
            "policies": policies,
            "client_request_timeout": request_timeout,
            "shutdown_grace": grace,
            "server_metadata": metadata,
        }
        self._options: Options | None = None
        self._running: Lifecycle | None = None
        self._entered: list[Any] = []

    def stub(
        self,
        contract: type[S],
        service: str = "",
        *,
        wait_for_ready: bool = False,
        compress: bool | None = None,
        policy: CallPolicy | None = None,
    ) -> S:
        """Return a stub to call other services with while this one runs; the arguments are those of `Client.stub`."""
        options = CallOptions(wait_for_ready=wait_for_ready, compress=compress, policy=policy)
        if options == USUAL:
            return contract(self, service)

        def unary(*call: Any) -> Reply[Any]:
            return self.client.unary(*call)

        def stream(*call: Any) -> ReplyStream[Any]:
            return self.client.stream(*call)

        return contract(Optioned(unary, stream, options), service)

    def init(
        self, args: Sequence[str] | argparse.Namespace | None = None, environ: Mapping[str, str] | None = None
    ) -> Options:
        """Read plugins, environment and command line, once: a second call returns the same options.

        Args:
            args: arguments without the program's name; None for this process's own.
            environ: instead of this process's environment.

        Raises:
            ConfigurationError: something in them is unknown or wrong.
        """
        if self._options is None:
            self._options = build(settings.read(args, environ), self._pinned)
        return self._options

    @property
    def options(self) -> Options:
        """What `init` has built; while the service runs, what it runs with.

        Raises:
            NotRunning: it neither runs nor was `init` called.
        """
        if self._running is not None:
            return self._running.options
        if self._options is None:
            raise NotRunning(f"{self.name}: call init() before taking its options")
        return self._options

    @property
    def client(self) -> Client:
        """The client of the running service.

        Raises:
            NotRunning: the service isn't.
        """
        if self._running is None:
            raise NotRunning(f"{self.name} calls or publishes before it was started or after it was stopped")
        return self._running.client

    @property
    def address(self) -> str:
        """Where the running server is reached; "" while it doesn't run."""
        return "" if self._running is None else self._running.address

    def run(self, args: Sequence[str] | argparse.Namespace | None = None) -> None:
        """Run until SIGTERM or SIGINT, then drain and return. A second signal ends it at once.

        Raises:
            SystemExit: 2 when the configuration is wrong, 1 when it could not start.
        """
        code = self._run(args)
        if code:
            raise SystemExit(code)

    def _run(self, args: Sequence[str] | argparse.Namespace | None) -> int:
        try:
            options = self.init(args)
        except ConfigurationError as error:
            print(f"{self.name}: {error}", file=sys.stderr)  # noqa: T201 - logging isn't configured yet
            return 2
        configure(options.log_level)
        return run_until_stopped(self, self.name)

    @asynccontextmanager
    async def started(self, options: Options | None = None) -> AsyncIterator[Lifecycle]:
        """Run the service within a block, with other options than its own if given (tests do that)."""
        self._check_stopped()
        self._running = Lifecycle(self._declared, options or self._options or self.init(()))
        try:
            async with self._running as running:
                yield running
        finally:
            self._running = None

    async def wait(self) -> None:
        """Wait for ever.

        Raises:
            NotRunning: the service isn't running.
        """
        if self._running is None:
            raise NotRunning(f"{self.name} isn't running")
        await self._running.wait()

    async def __aenter__(self) -> Self:
        block = self.started()
        await block.__aenter__()
        self._entered.append(block)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._entered.pop().__aexit__(*error)

    def unary(
        self, service: str, method: Method[Q, P], request: Q, timeout: float | None, metadata: Metadata | None
    ) -> Reply[P]:
        """Make one call; a stub's method does this."""
        return self.client.unary(service, method, request, timeout, metadata)

    def stream(
        self,
        service: str,
        method: Method[Q, P],
        requests: AsyncIterable[Q],
        timeout: float | None,
        metadata: Metadata | None,
    ) -> ReplyStream[P]:
        """Start a streaming call; a stub's method does this."""
        return self.client.stream(service, method, requests, timeout, metadata)

    def _grace(self) -> float:
        return self.options.grace

    def _check_stopped(self) -> None:
        if self._running is not None:
            raise ConfigurationError(f"{self.name} is running: declare what it does, and start it, before that")
