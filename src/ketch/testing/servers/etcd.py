"""etcd, from Debian's package `etcd-server`."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import urlopen

from .process import Server, free_port, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

#: Milliseconds; who is alone needn't wait long for others before it leads.
_ALONE = ("--heartbeat-interval", "20", "--election-timeout", "200")


@asynccontextmanager
async def etcd_server(
    port: int | None = None, *, keeps: bool = True, tls: bool = False, options: Sequence[str] = ()
) -> AsyncIterator[Server]:
    """Run a cluster of one member.

    Args:
        port: where to listen on 127.0.0.1; None for a free port.
        keeps: whether it comes back with its data after a kill; without it, it comes back empty.
        tls: whether its clients speak TLS; `options` say with which files.
        options: more of its command line.

    Raises:
        RuntimeError: there is no etcd, or it doesn't start.
    """
    options = (*_ALONE, *options)
    async with etcd_member("one", port or free_port(), free_port(), keeps=keeps, tls=tls, options=options) as server:
        await server.start()
        yield server


@asynccontextmanager
async def etcd_member(
    name: str,
    port: int,
    peer_port: int,
    *,
    cluster: str = "",
    advertised: int = 0,
    keeps: bool = True,
    tls: bool = False,
    options: Sequence[str] = (),
) -> AsyncIterator[Server]:
    """Describe one member, to be started by `start`.

    Args:
        name: its own.
        port: where clients find it on 127.0.0.1.
        peer_port: where it listens for the other members.
        cluster: `name=http://127.0.0.1:port` of each member, separated by commas; "" for this one alone.
        advertised: the port at which the others find it, when that isn't `peer_port` but a relay's.
        keeps: as `etcd_server`'s.
        tls: as `etcd_server`'s.
        options: as `etcd_server`'s.
    """
    found = program("etcd", "apt install etcd-server", "/usr/bin")
    scheme, health = "https" if tls else "http", free_port()
    peers = f"http://127.0.0.1:{advertised or peer_port}"
    with tempfile.TemporaryDirectory(prefix="ketch-etcd-") as folder:
        command = [
            *(found, "--name", name, "--data-dir", str(Path(folder, "data"))),
            *("--listen-client-urls", f"{scheme}://127.0.0.1:{port}"),
            *("--advertise-client-urls", f"{scheme}://127.0.0.1:{port}"),
            *("--listen-metrics-urls", f"http://127.0.0.1:{health}"),
            *("--listen-peer-urls", f"http://127.0.0.1:{peer_port}"),
            *("--initial-advertise-peer-urls", peers),
            *("--initial-cluster", cluster or f"{name}={peers}"),
            *options,
        ]
        kind = Server if keeps else _Forgetful
        server = kind(f"etcd://127.0.0.1:{port}", command, Path(folder), partial(_healthy, health))
        try:
            yield server
        finally:
            await server.kill()  # in good order it would hand its leadership over first


class _Forgetful(Server):
    """One that loses its data."""

    async def start(self) -> None:
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        await super().start()


async def _healthy(port: int) -> bool:
    """Tell whether it serves: a member without a majority says that it isn't healthy."""
    return await asyncio.to_thread(_health, port)


def _health(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=1.0) as answer:
            return b'"true"' in answer.read(1000)
    except HTTPError as error:
        error.close()  # 503: it has no leader; the answer holds a socket
        return False
    except OSError:
        return False
