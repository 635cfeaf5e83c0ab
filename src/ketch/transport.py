"""Transport: carries calls and streams of encoded messages between two processes.

It moves encoded bytes; their types are the business of `rpc.py` and the codecs. A unary call has its own path.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self, TypeAlias

from .context import Context
from .errors import ConfigurationError
from .tls import Tls

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from types import TracebackType

    from .context import ReplyMetadata
    from .url import Url

#: Largest message that is sent or accepted unless configured otherwise, in bytes (gRPC's customary limit).
MAX_MESSAGE_SIZE = 4 * 1024 * 1024

#: Names in lower case; bytes, or base64 text, under names that end in `-bin`.
Metadata: TypeAlias = "Mapping[str, str | bytes]"


class Request(Context):
    """What arrives with a call, before any decoding: the call's context, its body and what that is.

    `metadata` has names in lower case; values of names that end in `-bin` are base64 text without padding. Names that
    are the transport's own (`grpc-*`, `te`, `:path` …) are not among them. `trailers` and `reply_metadata` are for the
    handler's side to write, and for the transport to send.

    Attributes:
        content_type: media type of the bodies: `application/protobuf`, `application/json`, …
        body: the request of a unary call; b"" for a streaming one.
        begin: sends `reply_metadata` now; None for a unary call, whose metadata goes with its reply.
    """

    __slots__ = ("begin", "body", "content_type")

    def __init__(
        self,
        method: str,
        metadata: Mapping[str, str],
        content_type: str,
        deadline: float | None = None,
        peer: str = "",
        body: bytes = b"",
    ) -> None:
        # What `Context.__init__` does: one call less for each request.
        self.name = method
        self._metadata = metadata
        self.message = None
        self.attempt = 1
        self.deadline = deadline
        self.peer = peer
        self.compressed = False
        self.compress = None
        self.sent_metadata = None
        self.sent_trailers = None
        self.content_type = content_type
        self.body = body
        self.begin: Callable[[], Awaitable[None]] | None = None

    @property
    def method(self) -> str:
        """`/pkg.Service/Method`."""
        return self.name


class Stream(ABC):
    """One streaming call as either side sees it: encoded messages in order, each way.

    One task may send while another receives; neither method is for two tasks at once.

    Attributes:
        compress: Client: whether messages that follow are compressed; None as the transport is configured. True
            counts only if it was asked for when the stream was made. A server's is its request's.
        ends: Server: whether the caller says when it has sent all there is.
    """

    compress: bool | None
    ends: bool = True

    @abstractmethod
    async def send(self, body: bytes) -> None:
        """Send one message; waits while the peer's flow-control window is used up.

        Raises:
            StatusError: the call has ended; on the client's side with its status.
        """

    @abstractmethod
    async def receive(self) -> bytes | None:
        """Return the next message, or None when the peer sends no more.

        Not reading is back-pressure: the peer's window is only opened as messages are taken.

        Raises:
            StatusError: the call has ended badly: its status for the client, `Cancelled` or `DeadlineExceeded` else.
        """

    @abstractmethod
    async def end(self) -> None:
        """Say that this side sends no more. A server's stream ends with its handler instead."""

    @abstractmethod
    def cancel(self) -> None:
        """Give the call up at once; the peer is told. No error when it has ended."""

    async def begin(self) -> None:  # noqa: B027 - optional to implement
        """Server: send the request's `reply_metadata` now, and not just ahead of the first message."""

    async def begun(self) -> Mapping[str, str]:
        """Client: wait for the initial metadata, and return it; what there is now where a transport can't tell.

        Raises:
            StatusError: the call has ended without any.
        """
        return self.metadata

    @property
    def metadata(self) -> Mapping[str, str]:
        """Client: the initial metadata the server sent, empty until it or the first message arrived."""
        return {}

    @property
    def trailers(self) -> Mapping[str, str]:
        """Client: the trailing metadata, empty until the call has ended."""
        return {}


UnaryHandler: TypeAlias = Callable[[Request], Awaitable[bytes]]
StreamHandler: TypeAlias = Callable[[Request, Stream], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """How a listener serves one method: exactly one of the two handlers is set.

    `unary` gets the request with its body and returns the reply's body. `stream` sends and receives on the stream
    and returns when it is done. Either raises `StatusError` to answer with a status; whatever else it raises
    is logged by the listener and answered as `Unknown` without its text. When the caller cancels, disconnects or
    its deadline passes, the handler's task is cancelled.
    """

    unary: UnaryHandler | None = None
    stream: StreamHandler | None = None


class Listener(ABC):
    """An address being listened on."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where others reach it, with the port that was really bound."""

    @abstractmethod
    async def stop(self, grace: float) -> None:
        """Take no new connection and no new call, and wait for the calls in hand, at most `grace` seconds.

        Callers are told to go elsewhere; a call that a peer sends too late fails as `Unavailable` before any handler
        saw it. What is left after `grace` is cancelled and answered so. Stopping twice is no error.
        """


class Channel(ABC):
    """Calls to one address over as many connections as the transport sees fit; any number at a time.

    It connects at the first call and again after a connection is lost. Metadata names are lower case.
    """

    shared: bool = False  #: it leads to any of several instances: another may answer what one of them doesn't

    @abstractmethod
    async def unary(
        self,
        method: str,
        body: bytes,
        *,
        content_type: str,
        metadata: Metadata | None = None,
        timeout: float | None = None,
        received: ReplyMetadata | None = None,
        compress: bool | None = None,
    ) -> bytes:
        """Make one call and return its reply's body.

        `timeout` in seconds bounds all of it, connecting included; cancelling the awaiting task cancels the call.
        `received` is filled with what comes along, also when the call fails. `compress` says whether the request is
        compressed, None as the transport is configured; a transport that doesn't compress ignores it.

        Raises:
            StatusError: what the server answered; `Unreachable` when it has looked at nothing; `Unavailable` when the
                connection is lost; `DeadlineExceeded` after `timeout`; `ResourceExhausted` for too large a message.
        """

    @abstractmethod
    async def stream(
        self,
        method: str,
        *,
        content_type: str,
        metadata: Metadata | None = None,
        timeout: float | None = None,
        compress: bool | None = None,
    ) -> Stream:
        """Start a streaming call; errors as `unary`'s. Cancel the stream or receive until it ends."""

    async def ready(self, timeout: float | None = None) -> None:  # noqa: B027 - optional to implement
        """Wait until a call could be sent, connecting if need be; at once where that takes no connection.

        Raises:
            Unreachable: nobody is there.
            DeadlineExceeded: it took more than `timeout` seconds.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close the connections; calls still in hand fail as `Cancelled`. Closing twice is no error."""


class Transport(ABC):
    """Listens and connects. `name` is the plugin's, as in its entry point; `shares`: it can `share` a socket."""

    name: ClassVar[str]
    shares: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `name://address?options`, without any IO.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """

    @abstractmethod
    async def listen(self, address: str, routes: Mapping[str, Route]) -> Listener:
        """Serve `routes` (method -> route) on `host:port` (port 0: a free one) or `unix:/path`.

        The mapping is read per call, so routes added later are served too; what isn't in it is `Unimplemented`.

        Raises:
            AddressUnavailable: it is taken, not ours, or not allowed.
        """

    async def listen_for(self, service: str, address: str, routes: Mapping[str, Route]) -> Listener:  # noqa: ARG002 - see below
        """As `listen`, for a service, by whose name a transport may share its calls among its instances."""
        return await self.listen(address, routes)

    @abstractmethod
    def connect(self, address: str) -> Channel:
        """Return a channel to an address; no IO before its first call."""

    async def share(self, listening: socket.socket, routes: Mapping[str, Route]) -> Listener:  # noqa: ARG002 - see below
        """Serve `routes` on a bound socket that others accept from too; what waits in it at the end is left to them."""
        raise ConfigurationError(f"transport {self.name} can't share {listening.getsockname()}")

    @property
    def tls(self) -> Tls:
        """The TLS that it uses; an empty one for plain text. Who relies on the transport reads it here."""
        return Tls()

    def secure(self, tls: Tls) -> None:
        """Use TLS from now on, as the settings ask for; called before `open` and only where they do.

        A transport that implements it takes and makes no connection in plain text on a side that `tls` has, and
        reads the files in `open`, which raises `ConfigurationError` where they are wrong.

        Raises:
            ConfigurationError: it can't do TLS, or was built with other TLS options.
        """
        raise ConfigurationError(
            f"transport {self.name} can't encrypt, but the settings ask for {tls}: choose another transport, such as "
            "grpc, or leave the --server-tls-… and --client-tls-… settings out"
        )

    async def open(self) -> None:  # noqa: B027 - optional to implement
        """Connect to the backend, for a transport that has one."""

    async def close(self) -> None:  # noqa: B027 - optional to implement
        """Let go of whatever is still open. Closing twice is no error."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
