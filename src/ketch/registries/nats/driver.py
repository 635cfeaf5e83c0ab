"""The driver's connection, made and ended as a registry needs it."""

from __future__ import annotations

import asyncio
import logging
from random import uniform
from typing import TYPE_CHECKING, Any

from nats import errors

if TYPE_CHECKING:
    from nats.aio.client import Client

    from ...nats.config import Access

log = logging.getLogger("ketch.registry")

#: Seconds between two tries to reach a server again.
RECONNECT_WAIT = 0.5


async def connect(client: Client, access: Access, alive: float, **callbacks: Any) -> None:
    """Connect a client that reconnects by itself.

    Args:
        client: the driver's, new.
        access: the servers.
        alive: seconds of silence after which the connection is looked at.
        callbacks: as the driver has them.
    """
    async with asyncio.timeout(access.connect_timeout):
        await client.connect(
            servers=list(access.servers),
            name="ketch registry",
            connect_timeout=max(1, round(access.connect_timeout)),
            # Both are declared as int, and used as seconds. Spreading needs no secret.
            reconnect_time_wait=uniform(RECONNECT_WAIT / 2, RECONNECT_WAIT),  # type: ignore[arg-type]  # noqa: S311
            max_reconnect_attempts=-1,
            ping_interval=alive,  # type: ignore[arg-type]
            **callbacks,
            **access.login,
        )


async def disconnect(client: Any) -> None:
    """Disconnect at once, whatever wasn't sent."""
    if not client.is_connected:
        # The driver would write what is left to the connection that was lost, and stop half-closed.
        client._pending.clear()  # noqa: SLF001
        client._pending_data_size = 0  # noqa: SLF001
    try:
        await client.close()
    except (OSError, errors.Error) as error:
        log.debug("nats: the server went away while the connection was closed: %s", error)
