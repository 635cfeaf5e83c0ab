"""Mosquitto, an MQTT server, from the system's packages."""

from __future__ import annotations

import getpass
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .process import Server, free_port, listens, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: A CONNECT of MQTT 5 without anything, and the beginning of its answer.
_HELLO = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x05\x00\x00\x00"
_WELCOME = b"\x20"

_KEEP = ("persistence true", "autosave_on_changes true", "autosave_interval 1")


@asynccontextmanager
async def mosquitto_server(
    port: int | None = None, *, persistent: bool = False, config: str = ""
) -> AsyncIterator[Server]:
    """Run Mosquitto.

    Args:
        port: where to listen on 127.0.0.1; None for a free port.
        persistent: whether what it keeps is written down, in a temporary folder, with every change; slow.
        config: more lines of its configuration; anybody may connect unless they say otherwise.

    Raises:
        RuntimeError: there is no mosquitto, or it doesn't start.
    """
    found = program("mosquitto", "apt install mosquitto", "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
    port = free_port() if port is None else port
    with tempfile.TemporaryDirectory(prefix="ketch-mosquitto-") as name:
        folder = Path(name)
        file = folder / "mosquitto.conf"
        lines = [
            f"listener {port} 127.0.0.1",
            "" if "allow_anonymous" in config else "allow_anonymous true",
            f"user {getpass.getuser()}",  # of root it would make its own, which can't write here
            *(_KEEP if persistent else ()),
            f"persistence_location {folder}/",
            "max_queued_messages 0",  # by default a session loses what is over a thousand events
            "max_inflight_messages 0",  # by default twenty are on their way at a time
            "set_tcp_nodelay true",
            config,
        ]
        file.write_text("\n".join(lines) + "\n")
        tls = "certfile" in config
        answers = partial(listens, port) if tls else partial(listens, port, _WELCOME, _HELLO)
        server = Server(f"mqtt://127.0.0.1:{port}", [found, "-c", str(file)], folder, answers)
        try:
            await server.start()
            yield server
        finally:
            await server.stop()
