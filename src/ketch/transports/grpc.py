"""Transport `grpc`: gRPC over HTTP/2, on TCP or unix sockets; any gRPC client or server in any language is a peer.

    grpc
    grpc://?max_message_size=16777216&keepalive=60

Options: `max_message_size` (bytes), `max_streams` (calls in hand on one connection), `connect_timeout`,
`keepalive` (0: none) and `keepalive_timeout` (seconds), `max_connection_age`, `max_connection_age_grace` and
`max_connection_idle` (seconds, 0: none), `compression` (`gzip`: compress what is sent).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from ..grpc.channel import GrpcChannel
from ..grpc.listener import GrpcListener
from ..grpc.tuning import Tuning
from ..transport import Channel, Listener, Transport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..transport import Route
    from ..url import Url


class GrpcTransport(Transport):
    """Listens and connects; it holds nothing itself, listeners and channels own what they opened."""

    name: ClassVar[str] = "grpc"

    def __init__(self, tuning: Tuning | None = None) -> None:
        self._tuning = tuning or Tuning()

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `grpc://?options`.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        return cls(Tuning.from_url(url))

    async def listen(self, address: str, routes: Mapping[str, Route]) -> Listener:
        """Serve `routes` on `host:port` (port 0: a free one) or `unix:/path`.

        Raises:
            AddressUnavailable: it is taken, not ours, or not allowed.
        """
        return await GrpcListener.open(address, routes, self._tuning)

    def connect(self, address: str) -> Channel:
        """Return a channel to an address; no IO before its first call."""
        return GrpcChannel(address, self._tuning)
