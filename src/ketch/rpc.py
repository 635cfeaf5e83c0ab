"""What generated code is made of: Method, Servicer and Stub. `ketch generate` writes names and types around them.

A servicer's methods take and return typed messages; a stub's have the same shapes:

    unary            async def get(self, request: Q, /) -> P
    server stream    def list(self, request: Q, /) -> AsyncIterator[P]         (an async generator)
    client stream    async def upload(self, requests: AsyncIterator[Q], /) -> P
    both             def chat(self, requests: AsyncIterator[Q], /) -> AsyncIterator[P]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeAlias, TypeVar

from .context import wanted
from .errors import Unimplemented

if TYPE_CHECKING:
    from .codec import Codec

Q = TypeVar("Q")
P = TypeVar("P")

#: Names in lower case; bytes, or base64 text, under names that end in `-bin`.
Metadata: TypeAlias = Mapping[str, str | bytes]
Reply: TypeAlias = Coroutine[Any, Any, P]


class Cardinality(Enum):
    """Who streams."""

    UNARY = "unary"
    SERVER_STREAM = "server stream"
    CLIENT_STREAM = "client stream"
    BIDIRECTIONAL = "bidirectional"

    @property
    def streams_requests(self) -> bool:
        """Whether the client sends any number of messages."""
        return self in (Cardinality.CLIENT_STREAM, Cardinality.BIDIRECTIONAL)

    @property
    def streams_replies(self) -> bool:
        """Whether the server sends any number of messages."""
        return self in (Cardinality.SERVER_STREAM, Cardinality.BIDIRECTIONAL)


@dataclass(frozen=True, eq=False)
class Method(Generic[Q, P]):
    """One rpc of a contract.

    Attributes:
        contract: full name of the protobuf service, `shippy.user.v1.UserService`.
        name: the rpc's name there, `Create`.
        request, reply: the message classes.
        cardinality: who streams.
        idempotent: whether calling it twice does no harm (the proto option `idempotency_level`).
        codec: carries its messages in place of the program's codec of that content type; None for that one.
        path: `/contract/name`, as it travels.
    """

    contract: str
    name: str
    request: type[Q]
    reply: type[P]
    cardinality: Cardinality = Cardinality.UNARY
    idempotent: bool = False
    codec: Codec | None = None
    path: str = field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", f"/{self.contract}/{self.name}")

    def __repr__(self) -> str:
        return f"<Method {self.path}>"


class Servicer(ABC):
    """A contract to implement: generated, with one abstract method for each rpc.

    Attributes:
        contract: full name of the protobuf service.
        methods: the rpcs, by the name of the Python method that serves each.
    """

    contract: ClassVar[str]
    methods: ClassVar[Mapping[str, Method[Any, Any]]]


class ReplyStream(AsyncIterator[P]):
    """The replies of a streaming call, in order; iterate it once. Leaving early: `aclose()` or `async with`."""

    @property
    @abstractmethod
    def metadata(self) -> Mapping[str, str]:
        """What the server sent ahead of its first reply; empty before that came."""

    @property
    @abstractmethod
    def trailers(self) -> Mapping[str, str]:
        """What the server sent after its last reply; empty before the call has ended."""

    @abstractmethod
    async def __anext__(self) -> P:
        """Return the next reply.

        Raises:
            StatusError: the status that the call ended with.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Cancel what is left of the call. No error when it has ended."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Caller(ABC):
    """Carries a stub's calls; `Client` is the one there is, a test may bring its own."""

    @abstractmethod
    def unary(
        self, service: str, method: Method[Q, P], request: Q, timeout: float | None, metadata: Metadata | None
    ) -> Reply[P]:
        """Make one call to the service, or contract, called `service`."""

    @abstractmethod
    def stream(
        self,
        service: str,
        method: Method[Q, P],
        requests: AsyncIterable[Q],
        timeout: float | None,
        metadata: Metadata | None,
    ) -> ReplyStream[P]:
        """Start a streaming call; it is sent when the replies are first asked for."""


class Stub:
    """A contract to call: generated, with one method for each rpc.

    `timeout` is in seconds and bounds the whole call; None takes the client's default. `metadata` travels along.
    Each method raises `StatusError`: what the servicer raised, or what kept the call from it.
    """

    contract: ClassVar[str]

    def __init__(self, caller: Caller, service: str = "") -> None:
        """Call through `caller`; `service` narrows it down to one service's instances, not any of the contract's."""
        self._caller = caller
        self._service = service or self.contract

    def _unary(self, method: Method[Q, P], request: Q, timeout: float | None, metadata: Metadata | None) -> Reply[P]:
        return self._caller.unary(self._service, method, request, timeout, metadata)

    def _server_stream(
        self, method: Method[Q, P], request: Q, timeout: float | None, metadata: Metadata | None
    ) -> ReplyStream[P]:
        return self._caller.stream(self._service, method, One(request), timeout, metadata)

    async def _client_stream(
        self,
        method: Method[Q, P],
        requests: AsyncIterable[Q],
        timeout: float | None,
        metadata: Metadata | None,
    ) -> P:
        received = wanted()
        async with self._caller.stream(self._service, method, requests, timeout, metadata) as replies:
            try:
                found = [reply async for reply in _at_most(2, replies)]  # up to the status, which may be an error yet
            finally:
                if received is not None:
                    received.fill(replies.metadata, replies.trailers)
        if len(found) != 1:
            raise Unimplemented(f"{method.path}: ended with {'more than one reply' if found else 'no reply'}, not one")
        return found[0]

    def _bidirectional(
        self,
        method: Method[Q, P],
        requests: AsyncIterable[Q],
        timeout: float | None,
        metadata: Metadata | None,
    ) -> ReplyStream[P]:
        return self._caller.stream(self._service, method, requests, timeout, metadata)


async def _at_most(number: int, replies: AsyncIterable[P]) -> AsyncIterator[P]:
    async for reply in replies:
        yield reply
        number -= 1
        if not number:
            return


class One(AsyncIterable[Q]):
    """The requests of a call that has one; they can be gone through again."""

    def __init__(self, request: Q) -> None:
        self.request = request

    async def __aiter__(self) -> AsyncIterator[Q]:
        yield self.request
