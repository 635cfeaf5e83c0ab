"""Transport `grpc`: gRPC over HTTP/2, on TCP or unix sockets; any gRPC client or server in any language is a peer.

    grpc
    grpc://?max_message_size=16777216&keepalive=60

Options: `max_message_size` (bytes) and `max_send_size` (bytes, where what is sent may be larger than what is accepted),
`max_streams` (calls in hand on one connection), `connect_timeout`, `keepalive` (0: none) and `keepalive_timeout`
(seconds), `max_connection_age`, `max_connection_age_grace` and `max_connection_idle` (seconds, 0: none), `compression`
(`gzip`: compress what is sent), and for TLS those of the settings' names, `server_tls_cert` and so on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar, Self

from ..grpc.channel import GrpcChannel
from ..grpc.credentials import ClientCredentials, ServerCredentials
from ..grpc.listener import GrpcListener
from ..grpc.tuning import Tuning
from ..tls import Tls
from ..transport import Channel, Listener, Transport

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from ..transport import Route
    from ..url import Url


class GrpcTransport(Transport):
    """Listens and connects; it holds nothing itself, listeners and channels own what they opened."""

    name: ClassVar[str] = "grpc"
    shares: ClassVar[bool] = True

    def __init__(self, tuning: Tuning | None = None, tls: Tls | None = None) -> None:
        self._tuning = tuning or Tuning()
        self._take(tls or Tls())

    def _take(self, tls: Tls) -> None:
        self._tls = tls
        self._server = None if tls.server is None else ServerCredentials(tls.server)
        self._client = None if tls.client is None else ClientCredentials(tls.client)

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `grpc://?options`.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        return cls(Tuning.from_url(url), Tls.read(url.options))

    @property
    def tls(self) -> Tls:
        """The TLS that it uses."""
        return self._tls

    def secure(self, tls: Tls) -> None:
        """Use TLS from now on.

        Raises:
            ConfigurationError: it was built with other TLS options.
        """
        self._take(self._tls.join(tls, self.name))

    async def open(self) -> None:
        """Read certificates and keys.

        Raises:
            ConfigurationError: they can't be used; the message names the setting and the file.
        """
        for credentials in (self._server, self._client):
            if credentials is not None:
                await asyncio.to_thread(credentials.load)

    async def listen(self, address: str, routes: Mapping[str, Route]) -> Listener:
        """Serve `routes` on `host:port` (port 0: a free one) or `unix:/path`.

        Raises:
            AddressUnavailable: it is taken, not ours, or not allowed.
            ConfigurationError: certificate or key can't be used, where `open` was not called.
        """
        return await GrpcListener.open(address, routes, self._tuning, self._server)

    async def share(self, listening: socket.socket, routes: Mapping[str, Route]) -> Listener:
        """Serve `routes` on a socket that other processes accept from as well; see `transport.Transport`.

        Raises:
            ConfigurationError: certificate or key can't be used, where `open` was not called.
        """
        return await GrpcListener.share(listening, routes, self._tuning, self._server)

    def connect(self, address: str) -> Channel:
        """Return a channel to an address; no IO before its first call."""
        return GrpcChannel(address, self._tuning, self._client)
