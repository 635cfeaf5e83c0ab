"""The plugin: calls over NATS.

    nats://127.0.0.1:4222
    nats://user:password@a:4222,b:4222?address=instance&keepalive=10

Options: NATS's own as for the broker (`connect_timeout`, `timeout`, `tls`, `tls_ca`, `tls_cert`, `tls_key`,
`credentials`), those of calls as for `grpc` (`max_message_size`, `max_send_size`, `max_streams`, `keepalive`,
`keepalive_timeout`, `compression`), and `address`: `service` or `instance`.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, ClassVar, Self

from ...errors import AddressUnavailable, TransportError
from ...transport import Channel, Listener, Transport
from .asking import Writer
from .channel import NatsChannel
from .config import Settings
from .listener import NatsListener, taken
from .post import Post
from .words import INSTANCES, SERVICES, token

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...transport import Route
    from ...url import Url


class NatsTransport(Transport):
    """Listens on subjects and calls them, over one connection to NATS."""

    name: ClassVar[str] = "nats"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._post = Post(settings.nats)
        self._writer = Writer()
        self._numbers = itertools.count()

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `nats://host:port?options`."""
        return cls(Settings.from_url(url))

    async def open(self) -> None:
        """Connect to NATS.

        Raises:
            TransportError: no server can be reached, or it refuses us.
        """
        await self._post.open()

    async def close(self) -> None:
        """Disconnect. Closing twice is no error."""
        await self._post.close()

    async def listen(self, address: str, routes: Mapping[str, Route]) -> Listener:
        """Serve `routes` on a subject of its own; `host:port`, of which there is none, stands for a fresh one.

        Raises:
            AddressUnavailable: it is a subject that somebody listens on.
        """
        own = address if address.startswith(f"{INSTANCES}.") else self._fresh()
        if own == address and await taken(self._post, own):
            raise AddressUnavailable(f"can't listen on {address}: somebody does")
        return await self._open(routes, own, {own: False})

    async def listen_for(self, service: str, address: str, routes: Mapping[str, Route]) -> Listener:
        """Serve a service's `routes`, shared with its other instances, and on a subject of this instance's own."""
        shared, own = f"{SERVICES}.{token(service)}", self._fresh()
        address = shared if self._settings.shared else own
        return await self._open(routes, address, {shared: True, own: False})

    def connect(self, address: str) -> Channel:
        """Return a channel to a subject; no IO before its first call."""
        return NatsChannel(self._post, self._settings, address, self._writer)

    @property
    def location(self) -> str:
        """The servers, without credentials."""
        return self._post.link.location

    def _fresh(self) -> str:
        return f"{INSTANCES}.{self._post.id}.{next(self._numbers)}"

    async def _open(self, routes: Mapping[str, Route], address: str, subjects: Mapping[str, bool]) -> Listener:
        listener = NatsListener(self._post, self._settings, routes, address, subjects)
        try:
            await listener.open()
        except TransportError as error:
            await listener.stop(0)
            raise AddressUnavailable(str(error)) from error
        return listener
