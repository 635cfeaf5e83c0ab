"""Addresses: `host:port`, `[::1]:port`, `unix:/path`."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final, Self

from ..errors import AddressUnavailable

_PORTS: Final = 65_536
_WILDCARDS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, not bound
#: Any address outside: connecting a datagram socket sends nothing, but tells which of our addresses would be used.
_ELSEWHERE: Final = {socket.AF_INET: ("192.0.2.1", 9), socket.AF_INET6: ("2001:db8::1", 9)}


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or connect: a path, or a host and a port."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address.

        Raises:
            AddressUnavailable: it is none.
        """
        if text.startswith("unix:"):
            path = text.removeprefix("unix:").removeprefix("//")
            if path:
                return cls(path=path)
        else:
            host, colon, port = text.rpartition(":")
            bracketed = host.startswith("[") and host.endswith("]")
            plain = ":" not in host
            if colon and (bracketed or plain) and port.isascii() and port.isdigit() and int(port) < _PORTS:
                return cls(host[1:-1] if bracketed else host, int(port))
        raise AddressUnavailable(f"{text!r} is no address: host:port, [ipv6]:port or unix:/path")

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def reachable(host: str, bound: tuple[str, int]) -> Address:
    """Return where others reach a socket that listens on `host` and was bound to `bound`."""
    if host not in _WILDCARDS:
        return Address(host, bound[1])
    family = socket.AF_INET6 if ":" in bound[0] else socket.AF_INET
    return Address(_own(family), bound[1])


def _own(family: socket.AddressFamily) -> str:
    loopback = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE[family])
        except OSError:
            return loopback  # no network but ourselves
        return str(probe.getsockname()[0])
