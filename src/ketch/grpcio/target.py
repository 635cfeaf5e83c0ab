"""Target: where a channel's calls go: a client and a service's name."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from .. import settings
from ..client import Client
from ..errors import ConfigurationError
from ..options import build
from ..registries.static import StaticRegistry
from ..registry import Instance
from ..service import Service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..call import Middleware
    from ..transport import Transport

#: Name of the service whose instances a target's addresses are.
_TARGET: Final = "target"
_SCHEMES: Final = ("dns:///", "dns:", "ipv4:///", "ipv4:", "ipv6:///", "ipv6:")


class Target:
    """A client that is there, or one of its own for fixed addresses.

    Attributes:
        service: what is called: a service's name, "" for any that serves the contract.
    """

    def __init__(
        self,
        target: Client | Service | str,
        service: str,
        transport: str | Transport,
        middleware: Sequence[Middleware],
    ) -> None:
        self._own: Client | None = None
        self._open_client = target if isinstance(target, Client) else None
        self._running = target if isinstance(target, Service) else None
        self._opening = asyncio.Lock()
        self.service = service
        if isinstance(target, str):
            self._own = _fixed(target, transport, middleware)
            self.service = _TARGET
        elif middleware:
            raise ConfigurationError("middleware= goes with an address; a client or a service has its own")

    @property
    def client(self) -> Client | None:
        """The client, None where it must be opened first.

        Raises:
            NotRunning: the service isn't running.
        """
        return self._open_client if self._running is None else self._running.client

    async def open(self) -> Client:
        """Return the client, open."""
        client = self.client
        if client is not None:
            return client
        assert self._own is not None  # noqa: S101 - the one case that is left
        async with self._opening:
            if self._open_client is None:
                self._open_client = await self._own.__aenter__()
        return self._own

    async def close(self) -> None:
        """Close a client of its own; another's stays as it is."""
        if self._own is not None and self._open_client is not None:
            await self._own.stop()


def _fixed(target: str, transport: str | Transport, middleware: Sequence[Middleware]) -> Client:
    scheme = next((one for one in _SCHEMES if target.startswith(one)), "")
    if not scheme and "://" in target and not target.startswith("unix:"):
        raise ConfigurationError(f"target {target!r}: give host:port, unix:/path, or a client with its registry")
    addresses = target.removeprefix(scheme).split(",")
    instances = [Instance(_TARGET, address, address) for address in addresses]
    pinned = {
        "registry": StaticRegistry(instances),
        "transport": transport,
        "broker": "memory",
        "server_name": "grpcio",
    }
    return Client(build(settings.read((), {}), pinned), middleware=middleware)
