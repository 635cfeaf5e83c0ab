"""Knot DNS, from the package `knot`: an authoritative server whose zone can be changed while it runs."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .process import Server, free_port, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

_CONFIG = """\
server:
  listen: 127.0.0.1@{port}
  rundir: "{folder}"
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: "{folder}"
zone:
  - domain: {domain}
    file: "{folder}/zone"
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: none
    semantic-checks: off
"""
_HEAD = """\
$ORIGIN {domain}.
$TTL {ttl}
@ SOA ns hostmaster {serial} 1h 1h 1h {ttl}
@ NS ns
ns A 127.0.0.1
"""
_LOOK = 0.01  # seconds between two looks at what the server has


class KnotServer(Server):
    """A server of one zone.

    Attributes:
        domain: the zone's name.
        ttl: seconds, of all its records and of the answer that there is none.
    """

    domain = "shop.test"
    ttl = 1
    _serial = 1_000_000

    def __init__(self, port: int, command: Sequence[str], folder: Path) -> None:
        super().__init__(f"dns://127.0.0.1:{port}", command, folder, self.is_current)

    async def write(self, records: Sequence[str] = ()) -> None:
        """Make `records`, lines of a zone file, all that the zone has; if the server runs, it has when this returns."""
        self._serial += 1
        head = _HEAD.format(domain=self.domain, ttl=self.ttl, serial=self._serial)
        draft = self.folder / "draft"
        draft.write_text(head + "".join(f"{record}\n" for record in records))
        draft.replace(self.folder / "zone")
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(self._patience):
                while not await self.is_current():  # noqa: ASYNC110 - another process has no event of ours
                    await asyncio.sleep(_LOOK)

    async def is_current(self) -> bool:
        """Tell whether it answers, and with what was written last."""
        port = int(self.url.rpartition(":")[2])
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        try:
            async with asyncio.timeout(1.0):
                writer.write(_question(self.domain))
                size = int.from_bytes(await reader.readexactly(2), "big")
                return self._serial.to_bytes(4, "big") in await reader.readexactly(size)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return False
        finally:
            writer.close()


@asynccontextmanager
async def knot_server(port: int | None = None) -> AsyncIterator[KnotServer]:
    """Run a server whose zone is empty.

    Args:
        port: where to listen on 127.0.0.1; None for a free port.

    Raises:
        RuntimeError: there is no knotd, or it doesn't start.
    """
    found = program("knotd", "apt install knot", "/usr/sbin")
    port = free_port() if port is None else port
    with tempfile.TemporaryDirectory(prefix="ketch-knot-") as name:
        folder = Path(name)
        config = folder / "knot.conf"
        config.write_text(_CONFIG.format(port=port, folder=folder, domain=KnotServer.domain))
        server = KnotServer(port, [found, "-c", str(config)], folder)
        await server.write()
        try:
            await server.start()
            yield server
        finally:
            await server.stop()


def _question(domain: str) -> bytes:
    """Return a query for a zone's SOA, as it goes over TCP (RFC 1035 section 4)."""
    name = b"".join(bytes([len(label)]) + label.encode() for label in domain.split(".")) + b"\x00"
    query = b"\x12\x34\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00" + name + b"\x00\x06\x00\x01"
    return len(query).to_bytes(2, "big") + query
