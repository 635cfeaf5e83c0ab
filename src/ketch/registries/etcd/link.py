"""Link: calls to whichever member of the cluster answers."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ...errors import (
    Cancelled,
    ConfigurationError,
    DeadlineExceeded,
    RegistryError,
    StatusError,
    Unavailable,
    Unreachable,
)
from ...grpc.channel import GrpcChannel
from ...grpc.credentials import ClientCredentials
from ...grpc.tuning import Tuning
from .access import Access, hint
from .etcd_pb2 import (
    LeaseGrantResponse,
    LeaseKeepAliveResponse,
    LeaseRevokeResponse,
    LeaseTimeToLiveResponse,
    RangeResponse,
    TxnResponse,
    WatchResponse,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ...transport import Stream
    from .config import Config

Reply = TypeVar("Reply")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Method(Generic[Reply]):
    """One of etcd's methods: its path, and what reads its reply."""

    path: str
    read: Callable[[bytes], Reply]


RANGE = Method("/etcdserverpb.KV/Range", RangeResponse.FromString)
TXN = Method("/etcdserverpb.KV/Txn", TxnResponse.FromString)
LEASE_GRANT = Method("/etcdserverpb.Lease/LeaseGrant", LeaseGrantResponse.FromString)
LEASE_KEEP_ALIVE = Method("/etcdserverpb.Lease/LeaseKeepAlive", LeaseKeepAliveResponse.FromString)
LEASE_REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", LeaseRevokeResponse.FromString)
LEASE_TIME_TO_LIVE = Method("/etcdserverpb.Lease/LeaseTimeToLive", LeaseTimeToLiveResponse.FromString)
WATCH = Method("/etcdserverpb.Watch/Watch", WatchResponse.FromString)

_PROTOBUF = "application/protobuf"
#: Seconds before a cluster that answers, but can't serve just now (an election), is asked again.
_PAUSE = 0.1
#: etcd takes pings more often than every five seconds for abuse (--grpc-keepalive-min-time).
_KEEPALIVE = 6.0
#: The largest answer that is taken; pages are made smaller when one is larger.
_MAX_ANSWER = 16 * 1024 * 1024
#: A watch ends when its member loses the cluster's leader; else one in a minority would keep silent for ever.
_HAS_LEADER = {"hasleader": "true"}


class Link:
    """A connection to one member at a time; to another when that one doesn't serve."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._access = Access(config)
        self._credentials = None if config.tls is None else ClientCredentials(config.tls)
        self._tuning = Tuning(
            max_message_size=_MAX_ANSWER,
            connect_timeout=self._patience,
            keepalive=_KEEPALIVE,
            keepalive_timeout=config.timeout,
        )
        self._next = random.randrange(len(config.endpoints))  # noqa: S311 - spreads clients, hides nothing
        self._endpoint = ""
        self._channel: GrpcChannel | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._why = ""
        self._closed = False
        if self._credentials is not None:
            try:
                self._credentials.load()
            except ConfigurationError as error:
                raise ConfigurationError(f"etcd: {_our_options(str(error))}") from error

    @property
    def _patience(self) -> float:
        """Seconds for one member, so that there is time left to ask the others."""
        return self._config.timeout / len(self._config.endpoints)

    async def call(self, method: Method[Reply], request: Any) -> Reply:
        """Make a call that does no harm if it is made twice.

        Raises:
            RegistryError: it was refused, or no member served it in time; the cause is the call's status.
        """
        body = request.SerializeToString()

        async def once(channel: GrpcChannel, metadata: dict[str, str], timeout: float) -> bytes:
            return await channel.unary(method.path, body, content_type=_PROTOBUF, metadata=metadata, timeout=timeout)

        return method.read(await self._try(once))

    async def ask(self, method: Method[Reply], request: Any) -> Reply:
        """Send one message on a stream of its own and return the first answer; otherwise as `call`."""
        body = request.SerializeToString()

        async def once(channel: GrpcChannel, metadata: dict[str, str], timeout: float) -> bytes:
            stream = await channel.stream(method.path, content_type=_PROTOBUF, metadata=metadata, timeout=timeout)
            try:
                await stream.send(body)
                await stream.end()
                answer = await stream.receive()
                if answer is None:
                    raise Unavailable("the stream ended without an answer")
                await stream.receive()  # its end; to cancel it would be a warning in the log of some servers
            finally:
                stream.cancel()
            return answer

        return method.read(await self._try(once))

    async def _try(self, once: Callable[[GrpcChannel, dict[str, str], float], Awaitable[Result]]) -> Result:
        clock = asyncio.get_running_loop().time
        ends = clock() + self._config.timeout
        unreachable, renewed = 0, False
        while True:
            channel, used = self._current(), dict[str, str]()
            timeout = min(self._patience, max(0.0, ends - clock()))
            try:
                used = await self._access.metadata(channel, timeout)
                return await once(channel, used, timeout)
            except StatusError as error:
                if not renewed and self._access.renew(error, used):
                    renewed = True
                    continue
                if not self._may_pass(channel, error) or ends - clock() <= _PAUSE:
                    raise self.explain(error) from error
                unreachable = unreachable + 1 if isinstance(error, Unreachable) else 0
                if unreachable >= len(self._config.endpoints):
                    raise self.explain(error) from error
                if not isinstance(error, (Unreachable, Cancelled)):
                    await asyncio.sleep(_PAUSE)

    @asynccontextmanager
    async def stream(self, method: Method[Reply]) -> AsyncIterator[Stream]:
        """Begin a stream that goes on for as long as the member serves.

        Raises:
            RegistryError: it doesn't, or no more; from within the block as well.
        """
        channel = self._current()
        try:
            metadata = await self._access.metadata(channel, self._patience)
            stream = await channel.stream(method.path, content_type=_PROTOBUF, metadata=metadata | _HAS_LEADER)
            try:
                yield stream
            finally:
                stream.cancel()
        except StatusError as error:
            self._may_pass(channel, error)
            raise self.explain(error) from error

    def explain(self, error: StatusError) -> RegistryError:
        """Return a call's failure as ours."""
        why = self._why if isinstance(error, Cancelled) and self._why else error.message or error.code.name
        return RegistryError(f"etcd at {self._endpoint or self._config.location}: {_our_options(why)}{hint(error)}")

    async def close(self) -> None:
        """Close all connections. Closing twice is no error."""
        self._closed = True
        if self._channel is not None:
            self._leave("the registry was closed")
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _current(self) -> GrpcChannel:
        if self._closed:
            raise RegistryError(f"etcd at {self._config.location}: the registry was closed")
        if self._channel is None:
            endpoints = self._config.endpoints
            self._endpoint = endpoints[self._next % len(endpoints)]
            self._next += 1
            self._channel = GrpcChannel(self._endpoint, self._tuning, self._credentials)
        return self._channel

    def _may_pass(self, channel: GrpcChannel, error: StatusError) -> bool:
        """Tell whether trying again may help; leave the member, if it is to blame."""
        if not isinstance(error, (Unavailable, DeadlineExceeded, Cancelled)):
            return False
        # An election is over soon, and the only member there is is the best one.
        stay = "leader changed" in error.message or (
            len(self._config.endpoints) == 1 and error.message.startswith("etcdserver: ")
        )
        if channel is self._channel and not stay:
            self._leave(error.message)
        return True

    def _leave(self, why: str) -> None:
        channel, self._channel = self._channel, None
        self._why = why
        if channel is not None:
            task = asyncio.ensure_future(channel.close())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)


def _our_options(text: str) -> str:
    """Call the options of TLS what they are called here, not as a transport's settings."""
    return text.replace("client_tls_", "tls_")
