"""Google Pub/Sub: a small server of our own, since there is no emulator as a wheel; see `pubsub/`."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .process import Server, free_port, listens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

#: What an HTTP/2 server sends first of all: a SETTINGS frame; and what a client does (RFC 9113 section 3.4).
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_SETTINGS = b"\x00\x00"


@asynccontextmanager
async def googlepubsub_server(
    port: int | None = None, *, shortest_deadline: int = 1, tls: Sequence[str] = (), command: Sequence[str] = ()
) -> AsyncIterator[Server]:
    """Run a Pub/Sub server; it keeps what it has in a temporary folder, over its `kill` and `restart`.

    Args:
        port: where to listen on 127.0.0.1; None for a free port.
        shortest_deadline: seconds that an ack deadline has at least; the real service's is 10.
        tls: PEM files of a certificate and its key, to serve over TLS only.
        command: another server's program and arguments, `--port N` is added.

    Raises:
        RuntimeError: the client's messages aren't installed, or it doesn't start.
    """
    if importlib.util.find_spec("google.pubsub_v1") is None:
        raise RuntimeError("there is no google-cloud-pubsub here: pip install 'ketch[googlepubsub]'")
    port = free_port() if port is None else port
    own = [sys.executable, "-m", "ketch.testing.servers.pubsub", "--shortest-deadline", str(shortest_deadline)]
    own += ["--tls", *tls] if tls else []
    with tempfile.TemporaryDirectory(prefix="ketch-pubsub-") as name:
        server = Server(
            f"googlepubsub://127.0.0.1:{port}",
            [*(command or own), "--port", str(port)],
            Path(name),
            partial(listens, port) if tls else partial(listens, port, _SETTINGS, _HELLO),
        )
        try:
            await server.start()
            yield server
        finally:
            await server.stop()
