"""Consul: a small agent of our own, since none comes as a wheel; see `consuld/`. Or the real one, if it is built."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .process import Server, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

_QUESTION = b"GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_PATIENCE = 30.0


@asynccontextmanager
async def consul_server(
    port: int | None = None, *, token: str = "", program: str = "", arguments: Sequence[str] = ()
) -> AsyncIterator[Server]:
    """Run an agent that is a cluster of its own; it keeps what it has in a temporary folder.

    Args:
        port: where its HTTP API listens on 127.0.0.1; None for a free port.
        token: what requests must carry, at our own agent.
        program: the real Consul; "" for our own agent.
        arguments: further ones of the real Consul's.

    Raises:
        RuntimeError: it doesn't start.
    """
    port = free_port() if port is None else port
    with tempfile.TemporaryDirectory(prefix="ketch-consul-") as name:
        folder = Path(name)
        if program:
            command = [program, *_agent(port, folder), *arguments]
        else:
            own = [sys.executable, "-m", "ketch.testing.servers.consuld"]
            command = [*own, "--port", str(port), *(["--token", token] if token else [])]
        answers = partial(_has_leader, port)
        server = Server(f"consul://127.0.0.1:{port}", command, folder, answers, patience=_PATIENCE)
        try:
            await server.start()
            yield server
        finally:
            await server.stop()


def _agent(port: int, folder: Path) -> list[str]:
    ports = [free_port() for _ in range(3)]
    config = folder / "consul.json"
    config.write_text(
        '{"performance": {"raft_multiplier": 1}, "disable_update_check": true, "leave_on_terminate": false,'
        f' "ports": {{"http": {port}, "dns": -1, "grpc": -1, "grpc_tls": -1, "server": {ports[0]},'
        f' "serf_lan": {ports[1]}, "serf_wan": -1}}}}'
    )
    return [
        *("agent", "-server", "-bootstrap-expect=1", "-bind=127.0.0.1", "-node=test", "-log-level=warn"),
        *("-data-dir", str(folder / "data"), "-config-file", str(config)),
    ]


async def _has_leader(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        async with asyncio.timeout(1.0):
            writer.write(_QUESTION)
            answer = await reader.read()
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()
    return b" 200 " in answer and b":" in answer.rpartition(b"\r\n\r\n")[2]
