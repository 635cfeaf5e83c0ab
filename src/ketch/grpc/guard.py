"""Guard: a listener's side of TLS: who gets in, who doesn't, and what both are told."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Final

from ..http2 import frames
from ..http2.codes import ErrorCode
from ..http2.frames import PREFACE
from .tunnel import NO_ALPN, Tunnel
from .wire import address_of

if TYPE_CHECKING:
    import asyncio
    import ssl

    from .credentials import ServerCredentials

log = logging.getLogger("ketch.grpc")

_HANDSHAKE: Final = 0x16  #: first byte of a TLS connection (RFC 8446 section 5.1)
#: Seconds that a peer has to read why it was turned away.
_FAREWELL: Final = 2.0
#: Seconds between two complaints of a kind: whoever tries again and again must not fill the log.
_COMPLAIN: Final = 10.0

_HTTP1: Final = re.compile(rb"[A-Z]{3,10} ")
_PLAIN: Final = "it speaks plain text; this port speaks TLS only (server_tls_cert)"
#: Without SETTINGS before it: with them grpcio takes the connection for one that was made, and makes the next at once.
_GOAWAY: Final = frames.goaway(0, ErrorCode.INADEQUATE_SECURITY, "this port speaks TLS only")


def _http1(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(body), body)
    )


_ANSWER_PLAIN: Final = _http1(b"This port speaks gRPC over TLS only.\n")
_ANSWER_NO_ALPN: Final = _http1(b"This port speaks gRPC only, over HTTP/2: h2 by ALPN.\n")


class Guard:
    """Makes the tunnels of a listener, and knows those whose handshake isn't done."""

    def __init__(self, credentials: ServerCredentials, loop: asyncio.AbstractEventLoop, patience: float) -> None:
        self.loop = loop
        self.patience = patience
        self.closed = False
        self.shaking: set[Gate] = set()
        self._credentials = credentials
        self._complaints: dict[str, tuple[float, int]] = {}

    def admit(self, wire: asyncio.Protocol) -> Gate:
        """Return the tunnel for a new connection, with the certificate of today."""
        return Gate(wire, self._credentials.current(), self)

    def close(self) -> None:
        """Drop who hasn't come through the handshake; nobody comes through it any more."""
        self.closed = True
        for gate in list(self.shaking):
            gate.abort()

    def complain(self, peer: str, reason: str) -> None:
        """Log who was turned away, for each reason once in a while; there are as many as OpenSSL has."""
        now = time.monotonic()
        last, silent = self._complaints.get(reason, (-_COMPLAIN, 0))
        if now - last < _COMPLAIN:
            self._complaints[reason] = last, silent + 1
            return
        self._complaints[reason] = now, 0
        others = f" ({silent} more since the last time)" if silent else ""
        log.warning("closed the connection from %s: %s%s", peer, reason, others)


class Gate(Tunnel):
    """One client's tunnel."""

    def __init__(self, wire: asyncio.Protocol, context: ssl.SSLContext, guard: Guard) -> None:
        super().__init__(wire, context, self._turned_away)
        self._guard = guard
        self._first = True
        self._peer = ""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the handshake."""
        super().connection_made(transport)
        self._peer = address_of(transport)
        guard = self._guard
        guard.shaking.add(self)
        self._timer = guard.loop.call_later(guard.patience, self._lose_patience)
        if guard.closed:
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Look at the first byte: those who don't speak TLS are answered in what they speak."""
        if self._first:
            self._first = False
            if data[0] != _HANDSHAKE:
                self._answer_plainly(data)
                return
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that the socket is closed."""
        self.settle()
        super().connection_lost(exc)

    def settle(self) -> None:
        """Stop waiting."""
        self._guard.shaking.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def refuse(self, reason: str) -> None:
        """Say why, in half-close: closing at once, with bytes of the peer's unread, would take our words back."""
        if reason == NO_ALPN:
            self.write(_ANSWER_NO_ALPN)
        self._leave()

    def _turned_away(self, reason: str) -> None:
        if not self._first:  # who said nothing only looked whether the port is open
            self._guard.complain(self._peer, reason)

    def _answer_plainly(self, data: bytes) -> None:
        if data.startswith(PREFACE[: len(data)]):
            self._socket.write(_GOAWAY)
        elif _HTTP1.match(data):
            self._socket.write(_ANSWER_PLAIN)
        self._fail(_PLAIN)

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._guard.loop.call_later(_FAREWELL, self._socket.abort)
        if self._socket.can_write_eof() and not self._socket.is_closing():
            self._socket.write_eof()
        else:
            self._socket.close()

    def _lose_patience(self) -> None:
        self._first = False
        self._fail(f"no TLS handshake within {self._guard.patience:g} s")
        self._socket.abort()
