"""ClientWire: one connection that a channel made."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from ..errors import Cancelled, DeadlineExceeded, StatusError, TransportError, Unavailable, Unreachable
from ..http2.codes import ErrorCode, name_of
from ..http2.compression import encode
from . import framing, status, timeouts
from .calling import Caller, ClientStream, ClientUnary
from .compression import ACCEPTED, GZIP
from .content import to_wire
from .framing import WORTHWHILE, prefix
from .metadata import fields

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..context import ReplyMetadata
    from ..errors import ProtocolError
    from ..transport import Metadata
    from .credentials import ClientCredentials
    from .tuning import Tuning

#: Header blocks kept, and parts of them.
_REMEMBERED: Final = 1024
_COMPRESSED: Final = encode([("grpc-encoding", GZIP)])


class ClientWire(Caller):
    """One connection to a server.

    Attributes:
        ready: done when the server has shown that it speaks HTTP/2, or failed with why it will not.
    """

    def __init__(
        self,
        tuning: Tuning,
        loop: asyncio.AbstractEventLoop,
        address: str,
        on_change: Callable[[ClientWire], None],
        credentials: ClientCredentials | None = None,
    ) -> None:
        super().__init__(tuning, loop, client=True)
        self.ready: asyncio.Future[None] = loop.create_future()
        self._address = address
        self._scheme = "http" if credentials is None else "https"
        self._advice = "if it speaks TLS, set client_tls_ca" if credentials is None else credentials.advice
        name = "" if credentials is None else credentials.server_name
        self._authority = name or ("localhost" if address.startswith("unix:") else address)
        self._on_change = on_change
        self._blocks: dict[tuple[str, str, float | None], bytes] = {}
        self._parts: dict[str, bytes] = {}
        self._refused = ""
        self._cancelled = False

    async def wait_until_ready(self) -> None:
        """Return when calls can be made.

        Raises:
            Unreachable: the server doesn't speak HTTP/2, or refuses us.
        """
        await self.ready
        if self._refused:
            raise Unreachable(f"{self._address} refuses us: {self._refused}")

    def unary(
        self,
        method: str,
        body: bytes,
        content_type: str,
        metadata: Metadata | None,
        timeout: float | None,
        deadline: float | None,
        received: ReplyMetadata | None,
        compress: bool | None,  # noqa: FBT001 - handed on by its name
    ) -> ClientUnary:
        """Start a unary call; there is room for it.

        Raises:
            ResourceExhausted: the message is too large.
        """
        block = self._block(method, content_type, metadata, timeout)
        if compress or (compress is None and self.tuning.compression and len(body) >= WORTHWHILE):
            lead, body = framing.compress(body, self.tuning.max_send_size, insist=compress is True)
            block += _COMPRESSED
        else:
            lead = prefix(body, self.tuning.max_send_size)
        call = ClientUnary(self, self.loop.create_future(), deadline, received)
        if deadline is not None:
            self.deadlines.watch(deadline)
        connection = self.connection
        connection.streams.attach(call)
        if not connection.sender.whole(call, block, lead, body, b""):
            connection.piecemeal(call, block, lead, body, b"")
        return call

    def stream(
        self,
        method: str,
        content_type: str,
        metadata: Metadata | None,
        timeout: float | None,
        deadline: float | None,
        compress: bool | None,  # noqa: FBT001 - as above
    ) -> ClientStream:
        """Start a streaming call; there is room for it."""
        block = self._block(method, content_type, metadata, timeout)
        call = ClientStream(self, deadline)
        call.compress = compress
        if compress or (compress is None and self.tuning.compression):
            call.packs = True
            block += _COMPRESSED
        if deadline is not None:
            self.deadlines.watch(deadline)
        connection = self.connection
        connection.streams.attach(call)
        connection.sender.write(connection.headers(call, block))
        return call

    def failure(self, code: int, reason: str, *, refused: bool, deadline: float | None) -> StatusError:
        """Return the error of a call whose stream was reset."""
        if refused:
            return Unreachable(f"{self._address}: {reason}")
        if self._cancelled:
            return Cancelled("the channel was closed")
        if self.connection.ended:
            return Unavailable(f"{self._address}: {reason}")
        if code == ErrorCode.CANCEL and deadline is not None and deadline <= time.monotonic():
            # A server that knows the deadline gives the call up as it passes, which may be heard before our own timer.
            return DeadlineExceeded("the deadline passed, and the server gave the call up")
        return status.of_reset(code, reason)

    def cancel(self) -> None:
        """Close the connection; calls in hand fail as `Cancelled`."""
        self._cancelled = True
        self.connection.close("closed")
        self.close()
        self.fail(Cancelled("the channel was closed"))

    # what the connection tells

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that the socket is closed."""
        super().connection_lost(exc)
        # In TLS 1.3 it is only now that a server says what it thinks of our certificate.
        because = f": {exc}" if exc else ""
        because += "" if isinstance(exc, TransportError) else self._hint()
        self.fail(Unreachable(f"{self._address} closed the connection before it spoke HTTP/2{because}"))
        self._on_change(self)

    def on_settings(self) -> None:
        """Hear that the server speaks HTTP/2, or that it changed its limits."""
        if not self.ready.done():
            self.ready.set_result(None)
        self._on_change(self)

    def _hint(self) -> str:
        return "" if self.ready.done() else f"; {self._advice}"

    def on_goaway(self, code: int, reason: str) -> None:
        """Open no more streams here; a server that says so in anger at once isn't called again and again."""
        if code and not self._blocks:
            self._refused = f"{name_of(code)}: {reason}"
        self.on_ended_stream()

    def on_ended_stream(self) -> None:
        """Hear that there is room for a call, or that a connection which the server is leaving has none left."""
        self._on_change(self)
        if self.connection.streams.going and not self.connection.streams:
            self.close()

    def on_end(self, error: ProtocolError) -> None:
        """Close a connection whose server broke the rules."""
        self.fail(Unreachable(f"{self._address} does not speak gRPC: {error}{self._hint()}"))
        self.close()
        self._on_change(self)

    def fail(self, error: StatusError) -> None:
        """Say why there is no HTTP/2; the first reason counts."""
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # whoever waited may have gone

    # header blocks

    def _block(self, method: str, content_type: str, metadata: Metadata | None, timeout: float | None) -> bytes:
        key = method, content_type, timeout
        block = self._blocks.get(key) or self._compose(key)
        if metadata:
            block += encode(fields(metadata))
        return block

    def _compose(self, key: tuple[str, str, float | None]) -> bytes:
        """Return the block of a method and a timeout, from parts: a timeout may be another one for each call."""
        method, content_type, timeout = key
        block = self._parts.get(f"{content_type} {method}") or self._encode(method, content_type)
        if timeout is not None:
            text = timeouts.render(timeout)
            block += self._parts.get(text) or self._keep(text, encode([("grpc-timeout", text)]))
        if len(self._blocks) >= _REMEMBERED:
            self._blocks.clear()
        self._blocks[key] = block
        return block

    def _encode(self, method: str, content_type: str) -> bytes:
        block = encode(
            [
                (":method", "POST"),
                (":scheme", self._scheme),
                (":path", method),
                (":authority", self._authority),
                ("te", "trailers"),
                ("content-type", to_wire(content_type)),
                ("grpc-accept-encoding", ACCEPTED),
                ("user-agent", "grpc-python-ketch"),
            ]
        )
        return self._keep(f"{content_type} {method}", block)

    def _keep(self, name: str, part: bytes) -> bytes:
        if len(self._parts) >= _REMEMBERED:
            self._parts.clear()
        self._parts[name] = part
        return part
