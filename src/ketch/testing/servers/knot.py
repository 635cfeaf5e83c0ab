"""Knot DNS, from the package `knot`: an authoritative server whose zone can be changed while it runs."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from contextlib import asynccontextmanager
from functools import partial
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
#: A query for the root's NS, over TCP.
_QUERY = b"\x00\x11\x12\x34\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01"


class KnotServer(Server):
    """A server of one zone.

    Attributes:
        domain: the zone's name.
        ttl: seconds, of all its records and of the answer that there is none.
    """

    domain = "shop.test"
    ttl = 1
    _serial = 0

    def write(self, records: Sequence[str] = ()) -> None:
        """Make `records`, lines of a zone file, all that the zone has; the server is told if it runs."""
        self._serial += 1
        head = _HEAD.format(domain=self.domain, ttl=self.ttl, serial=self._serial)
        draft = self.folder / "draft"
        draft.write_text(head + "".join(f"{record}\n" for record in records))
        draft.replace(self.folder / "zone")
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)


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
        command = [found, "-c", str(config)]
        server = KnotServer(f"dns://127.0.0.1:{port}", command, folder, partial(_answers, port))
        server.write()
        try:
            await server.start()
            yield server
        finally:
            await server.stop()


async def _answers(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        async with asyncio.timeout(1.0):
            writer.write(_QUERY)
            return (await reader.readexactly(4))[2:] == _QUERY[2:4]
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    finally:
        writer.close()
