"""Channel: grpc.aio's channel as generated stubs see it; its calls are a ketch client's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import grpc.aio

from ..rpc import Cardinality, Method
from .callables import StreamStream, StreamUnary, UnaryStream, UnaryUnary
from .calls import Calls
from .codec import StockCodec
from .target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from ..call import Middleware
    from ..client import Client
    from ..service import Service
    from ..transport import Transport


def channel(
    target: Client | Service | str,
    service: str = "",
    *,
    compression: grpc.Compression | None = None,
    transport: str | Transport = "grpc",
    middleware: Sequence[Middleware] = (),
) -> grpc.aio.Channel:
    """Return a channel for stubs that grpcio's tools generated.

        users = UserServiceStub(grpcio.channel(client))                    # found by discovery, by contract
        users = UserServiceStub(grpcio.channel("127.0.0.1:50051"))

    As with grpc.aio, a call without a timeout has none; within a ketch handler its deadline counts.

    Args:
        target: a client, or a service whose client it is while that runs: instances are found in its registry, and its
            middleware is around each call. Or an address, `host:port` or `unix:/path`, or several with commas.
        service: narrows it down to the instances of one service.
        compression: of requests.
        transport: with an address: what carries the calls, such as `grpc://?max_message_size=16777216`.
        middleware: with an address: around each call.

    Raises:
        ConfigurationError: the target can't be used.
        NotImplementedError: a compression that ketch doesn't send.
    """
    return Channel(Calls(Target(target, service, transport, middleware), compression))


class Channel(grpc.aio.Channel):
    """See `channel`. Close it, or use it as an async context manager; a client that it was given stays open."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - grpc.aio's signature
    ) -> UnaryUnary:
        """Return a method with one request and one reply."""
        return UnaryUnary(self._calls, _method(method, request_serializer, response_deserializer, Cardinality.UNARY))

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - as above
    ) -> UnaryStream:
        """Return a method with one request and any number of replies."""
        kind = Cardinality.SERVER_STREAM
        return UnaryStream(self._calls, _method(method, request_serializer, response_deserializer, kind))

    def stream_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - as above
    ) -> StreamUnary:
        """Return a method with any number of requests and one reply."""
        kind = Cardinality.CLIENT_STREAM
        return StreamUnary(self._calls, _method(method, request_serializer, response_deserializer, kind))

    def stream_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - as above
    ) -> StreamStream:
        """Return a method with any number of requests and of replies."""
        kind = Cardinality.BIDIRECTIONAL
        return StreamStream(self._calls, _method(method, request_serializer, response_deserializer, kind))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 - as above
        """Return the channel's state; see `Connectivity`."""
        if try_to_connect:
            self._calls.connectivity.begin()
        return self._calls.connectivity.state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the state is another."""
        await self._calls.connectivity.wait(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until a server can be reached; bound it with `asyncio.timeout`.

        Raises:
            NotImplementedError: the channel isn't told which service it is for.
        """
        await self._calls.ready()

    async def close(self, grace: float | None = None) -> None:
        """Wait at most `grace` seconds for the calls going on, cancel the rest, and close. Twice is no error."""
        await self._calls.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _method(
    path: str,
    serialize: Callable[[Any], bytes] | None,
    deserialize: Callable[[bytes], Any] | None,
    cardinality: Cardinality,
) -> Method[Any, Any]:
    contract, _, name = path.lstrip("/").rpartition("/")
    return Method(contract, name, object, object, cardinality, codec=StockCodec(serialize, deserialize))
