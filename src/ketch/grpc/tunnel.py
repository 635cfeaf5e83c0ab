"""Tunnel: TLS between a socket and what speaks on it: a protocol to the one, a transport to the other.

The event loops' own TLS takes one context for a listener's whole life, and tells of a handshake that failed neither
whose it was nor, to the peer, why. Here each connection has the context of its time, and bounds and errors of its own.
Bytes are passed on as they are encrypted, so the socket's buffer stays the only one and its limits are the wire's.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

from ..errors import TransportError
from .credentials import ALPN
from .explanation import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Largest content of a TLS record (RFC 8446 section 5.1): no read returns more.
_RECORD: Final = 16_384
#: Bytes that are encrypted or decrypted at a time: OpenSSL's buffers never shrink, and an idle connection keeps them.
_SLICE: Final = 32_768
#: Bytes that the socket hasn't taken, above which nobody is answered any more: several times what a wire lets wait.
_UNREAD: Final = 4_194_304

CLOSED: Final = "it closed the connection during the TLS handshake; does it speak TLS?"
NO_ALPN: Final = "it did not agree on h2 by ALPN, which gRPC over TLS takes (RFC 9113 section 3.2)"


class Tunnel(asyncio.Protocol, asyncio.Transport):
    """One connection's TLS.

    Args:
        wire: what speaks inside; it hears `connection_made` when the handshake is done, not before.
        context: with our certificates and roots.
        failed: called once, with the reason, if the handshake comes to nothing; the wire hears nothing then.
        server_name: whom we call; None on the server's side.
    """

    def __init__(
        self,
        wire: asyncio.Protocol,
        context: ssl.SSLContext,
        failed: Callable[[str], None],
        *,
        server_name: str | None = None,
    ) -> None:
        asyncio.Transport.__init__(self)
        self._wire = wire
        self._failed = failed
        self._server = server_name is None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(
            self._incoming, self._outgoing, server_side=self._server, server_hostname=server_name
        )
        self._socket: asyncio.Transport
        self._shaking = True
        self._over = False
        self._left = False  # the peer has said that it writes no more (close_notify)
        self._error: TransportError | None = None

    # to the socket: a protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self._socket = cast("asyncio.Transport", transport)  # uvloop's aren't, but have its methods
        if not self._server:
            self._shake()

    def data_received(self, data: bytes) -> None:
        """Go on with the handshake; once it is done decrypt."""
        if self._over:
            return
        if not self._shaking:
            self._decrypt(data)
            return
        self._incoming.write(data)
        if self._shake():
            self._decrypt(b"")

    def eof_received(self) -> None:
        """Hear that the peer says no more: HTTP/2 tells a whole message from a cut one, so the socket may close."""
        self._fail(CLOSED)

    def pause_writing(self) -> None:
        """Hear that the socket is full."""
        if not self._shaking:
            self._wire.pause_writing()

    def resume_writing(self) -> None:
        """Hear that the socket takes more."""
        if not self._shaking:
            self._wire.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that the socket is closed."""
        self._fail(f"the connection was lost during the TLS handshake: {exc}" if exc else CLOSED)
        self._over = True
        if not self._shaking:
            self._wire.connection_lost(self._error or exc)

    # the handshake

    def _shake(self) -> bool:
        """Go on with the handshake; True when it is done."""
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._flush()  # the alert
            self._fail(explain(error, server=self._server))
        else:
            self._flush()
            if self._ssl.selected_alpn_protocol() == ALPN:
                self._shaking = False
                self.settle()
                self._wire.connection_made(self)
                return True
            self._fail(NO_ALPN)
        return False

    def settle(self) -> None:
        """Hear that the handshake is over."""

    def _fail(self, reason: str) -> None:
        """End a handshake that is under way."""
        if self._shaking and not self._over:
            self.refuse(reason)
            self._over = True
            self._failed(reason)

    def refuse(self, reason: str) -> None:  # noqa: ARG002 - a server's tunnel takes leave according to it
        """Close the socket after the handshake failed."""
        self._socket.close()

    # inside

    def _decrypt(self, data: bytes) -> None:
        chunks: list[bytes] = []
        error: ssl.SSLError | None = None
        try:
            if len(data) <= _SLICE:
                self._incoming.write(data)
                self._read(chunks)
            else:
                view = memoryview(data)
                for at in range(0, len(data), _SLICE):
                    self._incoming.write(view[at : at + _SLICE])
                    self._read(chunks)
        except ssl.SSLError as caught:
            error = caught
        if chunks:
            self._wire.data_received(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        if self._outgoing.pending:
            self._answer()
        if self._left:
            self.close()
        elif error is not None:
            self._break(explain(error, server=self._server))

    def _read(self, chunks: list[bytes]) -> None:
        incoming, read = self._incoming, self._ssl.read
        try:
            while left := incoming.pending or self._ssl.pending():
                chunk = read(min(left, _RECORD))
                if not chunk:
                    self._left = True
                    return
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            return

    def _answer(self) -> None:
        """Send what OpenSSL has to say of its own: to a peer that makes it talk and doesn't read only so much."""
        if self._socket.get_write_buffer_size() > _UNREAD:
            self._break("answers aren't read")
        else:
            self._flush()

    def _break(self, reason: str) -> None:
        """Close what can't go on; in TLS 1.3 a certificate may be refused as late as this."""
        if not self._over:
            self._over = True
            self._error = TransportError(f"TLS: {reason}")
            self._socket.close()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._socket.write(self._outgoing.read())

    # to the wire: a transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and write."""
        if self._over:
            return
        try:
            if len(data) <= _RECORD:
                self._ssl.write(data)
                self._socket.write(self._outgoing.read())
            else:
                self._socket.write(b"".join(self._encrypt(memoryview(data))))
        except ssl.SSLError as error:
            self._break(explain(error, server=self._server))

    def _encrypt(self, data: memoryview) -> Iterator[bytes]:
        while data:
            data = data[self._ssl.write(data[:_SLICE]) :]
            yield self._outgoing.read()

    def close(self) -> None:
        """Write what is queued, say goodbye and close."""
        if not self._over:
            self._over = True
            with suppress(ssl.SSLError):  # it would rather wait for the peer's goodbye
                self._ssl.unwrap()
            self._flush()
            self._socket.close()

    def abort(self) -> None:
        """Close at once."""
        self._over = True
        self._socket.abort()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._over or self._socket.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the socket knows; `ssl_object` is ours."""
        return self._ssl if name == "ssl_object" else self._socket.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when the wire hears `pause_writing`."""
        self._socket.set_write_buffer_limits(high=high, low=low)

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the socket has yet to take."""
        return self._socket.get_write_buffer_size()

    def pause_reading(self) -> None:
        """Read no more for now."""
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._socket.resume_reading()
