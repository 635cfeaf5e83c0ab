"""Pool: the channels to each address that is called."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from .errors import KetchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .transport import Channel, Transport

log = logging.getLogger("ketch.client")

#: Seconds after which the channel to an instance that is gone is closed; twice this at most.
_LINGER = 30.0


class Pool:
    """Channels by address, made when they are asked for and closed when nobody answers there any more.

    Args:
        transport: makes the channels.
        addresses: returns those that are in use.
    """

    def __init__(self, transport: Transport, addresses: Callable[[], set[str]]) -> None:
        self._transport = transport
        self._addresses = addresses
        self._channels: dict[tuple[str, int], Channel] = {}
        self._pruning: asyncio.Task[None] | None = None

    def channel(self, address: str, number: int = 0) -> Channel:
        """Return a channel to an address; each number has one of its own."""
        channel = self._channels.get((address, number))
        if channel is None:
            channel = self._channels[address, number] = self._transport.connect(address)
        return channel

    def start(self) -> None:
        """Begin to close what is no longer needed."""
        self._pruning = asyncio.create_task(self._prune(), name="ketch client pruning")

    async def close(self) -> None:
        """Close all channels. Closing twice is no error."""
        pruning, self._pruning = self._pruning, None
        if pruning is not None:
            pruning.cancel()
            await asyncio.gather(pruning, return_exceptions=True)
        while self._channels:
            await _close(self._channels.popitem()[1])

    async def _prune(self) -> None:
        # An instance that left the registry may still be finishing our calls, so its channel is closed a round later.
        gone: set[tuple[str, int]] = set()
        while True:
            await asyncio.sleep(_LINGER)
            used = self._addresses()
            missing = {key for key in self._channels if key[0] not in used}
            for key in gone & missing:
                if key[0] not in self._addresses():  # it may have come back while another one was closed
                    await _close(self._channels.pop(key))
            gone = missing


async def _close(channel: Channel) -> None:
    """Close a channel; one that can't be closed is no reason to leave the others open."""
    try:
        await channel.close()
    except KetchError as error:
        log.warning("a channel could not be closed: %s", error)
