"""MemoryTransport: who listens where, within one event loop."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, ClassVar, Final, Self
from weakref import WeakKeyDictionary

from ...errors import AddressUnavailable, Unreachable
from ...transport import MAX_MESSAGE_SIZE, Channel, Listener, Route, Transport
from .channel import MemoryChannel
from .listener import MemoryListener

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...url import Url
    from .exchange import Exchange

_numbers: Final = itertools.count(1)
#: One namespace for all transports of an event loop: (name, address) -> listener.
_listeners: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], MemoryListener]] = WeakKeyDictionary()


class MemoryTransport(Transport):
    """Reaches every listener that a memory transport of the same name made on the same event loop."""

    name: ClassVar[str] = "memory"

    def __init__(self, world: str = "", *, max_message_size: int = MAX_MESSAGE_SIZE) -> None:
        self._world = world
        self._limit = max_message_size

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `memory://name?max_message_size=…`.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        url.only("max_message_size")
        return cls(url.address, max_message_size=int(url.number("max_message_size", MAX_MESSAGE_SIZE)))

    async def listen(self, address: str, routes: Mapping[str, Route]) -> Listener:
        """Serve `routes` under an address; port 0 or "" gets a free one, such as `memory:1`.

        Raises:
            AddressUnavailable: somebody listens there.
        """
        mine = _listeners.setdefault(asyncio.get_running_loop(), {})
        if not address or address.endswith(":0"):
            address = f"memory:{next(_numbers)}"
        key = self._world, address
        if key in mine:
            raise AddressUnavailable(f"can't listen on {address}: another listener of this process does")
        listener = mine[key] = MemoryListener(address, routes, self._limit, lambda: mine.pop(key, None))
        return listener

    def connect(self, address: str) -> Channel:
        """Return a channel to an address."""

        def find() -> Callable[[Exchange], None]:
            listener = _listeners.get(asyncio.get_running_loop(), {}).get((self._world, address))
            if listener is None:
                raise Unreachable(f"{address} can't be reached: nobody in this process listens there")
            return listener.accept

        return MemoryChannel(find, self._limit)
