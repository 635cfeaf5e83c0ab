"""Ether: the sockets that multicast DNS is heard and spoken on."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from typing import TYPE_CHECKING, Any, Final

from ...errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Takes a packet, and where it came from.
    Take = Callable[[bytes, tuple[str, int]], None]

log = logging.getLogger("ketch.registry")

GROUP: Final = "224.0.0.251"
PORT: Final = 5353
#: Bytes that a socket may keep for us, as far as the system lets it.
_BUFFER: Final = 4 * 1024 * 1024
#: A question about nothing: whoever is in the group hears it, nobody answers.
_NOTHING: Final = bytes(12)
#: RFC 6762 section 11: so that a router never passes it on without lowering it.
_HOPS: Final = 255


class Ether:
    """One interface's multicast group, and a port of our own for those who answer by unicast.

    Args:
        interface: its IPv4 address; "" for the one that multicast goes out of by default.
        port: 5353, but for tests.
        take: hears every packet from this network.
        fail: hears what is wrong: that nothing can be sent, or nothing is heard.
    """

    def __init__(self, interface: str, port: int, take: Take, fail: Callable[[str], None]) -> None:
        self._interface = interface
        self._port = port
        self._take = take
        self._fail = fail
        self._group: asyncio.DatagramTransport | None = None
        self._own: asyncio.DatagramTransport | None = None
        self._heard = True
        self._broken = False

    @property
    def place(self) -> str:
        """The group, for people."""
        return f"{GROUP}:{self._port}" + (f" at {self._interface}" if self._interface else "")

    async def open(self) -> None:
        """Join the group.

        Raises:
            RegistryError: there is no multicast here.
        """
        loop = asyncio.get_running_loop()
        try:
            self._group = await _endpoint(loop, _Ear(self._hear, self._break), _joined(self._interface, self._port))
            self._own = await _endpoint(loop, _Ear(self._hear_answer, self._break), _speaker(self._interface))
        except OSError as error:
            self.close()
            raise RegistryError(
                f"mdns: no multicast on {self.place}: {error.strerror or error}; name an interface by its address: "
                "mdns://?interface=192.168.1.7"
            ) from error
        self._heard = True

    def check(self) -> bool:
        """Say nothing, aloud; return whether that could be done and whether the last one was heard here.

        An interface that was made anew takes what is sent and gives nothing: the group was joined on the old one.
        """
        heard, self._heard = self._heard, False
        self._broken = False
        self.send(_NOTHING)
        if not heard:
            self._fail(f"nothing is heard from {self.place}, not even what is sent there")
        return heard and not self._broken

    def close(self) -> None:
        """Leave it. Closing twice is no error."""
        for transport in (self._group, self._own):
            if transport is not None:
                transport.close()
        self._group = self._own = None

    def send(self, data: bytes, *, ask: bool = False) -> None:
        """Send to everybody; `ask` from a port of our own, to which answers come by unicast (RFC 6762 section 6.7)."""
        transport = self._own if ask else self._group
        if transport is not None:
            transport.sendto(data, (GROUP, self._port))

    def answer(self, data: bytes, to: tuple[str, int]) -> None:
        """Send to one."""
        if self._group is not None:
            self._group.sendto(data, to)

    def _hear(self, data: bytes, source: tuple[str, int]) -> None:
        self._heard = True
        self._take(data, source)  # no router passes this group on: whoever speaks here is on this network

    def _hear_answer(self, data: bytes, source: tuple[str, int]) -> None:
        if not ipaddress.ip_address(source[0]).is_global:  # anybody may send to a port
            self._take(data, source)

    def _break(self, reason: str) -> None:
        self._broken = True
        self._fail(f"nothing can be sent to {self.place}: {reason}")


class _Ear(asyncio.DatagramProtocol):
    """One socket's."""

    def __init__(self, take: Take, fail: Callable[[str], None]) -> None:
        self._take = take
        self._fail = fail

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Take a packet."""
        self._take(data, (str(addr[0]), addr[1]))

    def error_received(self, exc: Exception) -> None:
        """Hear that something could not be sent."""
        self._fail(str(exc))


async def _endpoint(
    loop: asyncio.AbstractEventLoop, protocol: asyncio.DatagramProtocol, bound: socket.socket
) -> asyncio.DatagramTransport:
    transport, _ = await loop.create_datagram_endpoint(lambda: protocol, sock=bound)
    return transport


def _joined(interface: str, port: int) -> socket.socket:
    made = _socket(interface)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        made.bind((GROUP, port))
        joining = socket.inet_aton(GROUP) + socket.inet_aton(interface or "0.0.0.0")  # noqa: S104 - the default one
        made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joining)
    except BaseException:
        made.close()
        raise
    return made


def _speaker(interface: str) -> socket.socket:
    made = _socket(interface)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        made.bind((interface or "0.0.0.0", 0))  # noqa: S104 - answers come on whatever the question left by
    except BaseException:
        made.close()
        raise
    return made


def _socket(interface: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        made.settimeout(0)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _HOPS)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        if interface:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
    except BaseException:
        made.close()
        raise
    return made
