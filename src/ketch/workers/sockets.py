"""Sockets: what the workers of one supervisor listen on together."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from typing import Any

from ..errors import AddressUnavailable
from ..grpc.address import Address, reachable
from ..grpc.listener import clear
from .say import say


class Sockets:
    """Sockets by the address that was asked for: bound when it is first, and held until `close`.

    The workers have copies. What waits in a socket to be accepted outlives each of them, since it is held here. None of
    them listens before a worker does: until one is ready, callers are refused and not kept waiting.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, socket.socket]] = {}

    @property
    def addresses(self) -> list[str]:
        """Where they are reached."""
        return [address for address, _ in self._held.values()]

    def get(self, wanted: str) -> tuple[str, socket.socket]:
        """Return the socket for `host:port` (port 0: a free one, but always the same) or `unix:/path`.

        Raises:
            AddressUnavailable: it is taken, not ours, or not allowed.
        """
        if wanted not in self._held:
            try:
                self._held[wanted] = _bind(Address.parse(wanted))
            except OSError as error:
                raise AddressUnavailable(f"can't listen on {wanted}: {error.strerror or error}") from error
        return self._held[wanted]

    def refuse(self) -> None:
        """Turn callers away, those that wait as well, until a worker listens again: just now there is none."""
        for wanted, (address, bound) in list(self._held.items()):
            if not _listens(bound):
                continue
            bound.close()
            try:
                self._held[wanted] = _bind(Address.parse(wanted), Address.parse(address).port)
            except OSError as error:
                del self._held[wanted]  # the next worker tries again, and hears why it can't
                say(f"{address} was taken by another process: {error.strerror or error}")

    def close(self) -> None:
        """Let go of them: whoever still waits to be accepted is turned away once no worker has a copy."""
        while self._held:
            _, (address, bound) = self._held.popitem()
            bound.close()
            if address.startswith("unix:"):
                with suppress(FileNotFoundError):
                    os.unlink(Address.parse(address).path)  # noqa: PTH108 - one idea of a path, see clear


def _listens(bound: socket.socket) -> bool:
    return bool(bound.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _bind(wanted: Address, port: int | None = None) -> tuple[str, socket.socket]:
    """Bind a socket, to `port` where the address leaves it open."""
    if wanted.path:
        clear(wanted.path)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        place: Any = wanted.path
    else:
        host = wanted.host or "0.0.0.0"  # noqa: S104 - `:8080` means all of them
        found = socket.getaddrinfo(host, wanted.port or port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        bound = socket.socket(family, kind, protocol)
        if sys.platform != "win32":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        bound.bind(place)
    except OSError:
        bound.close()
        raise
    if wanted.path:
        return str(wanted), bound
    name = bound.getsockname()
    return str(reachable(wanted.host, (str(name[0]), int(name[1])))), bound
