"""Server: a server's process, that can be killed and started again at the same address."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import socket
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

#: Seconds between two looks whether it answers.
_LOOK = 0.02

#: Where servers listen; Linux gives 32768 and above to outgoing connections.
_PORTS = (12_000, 32_000)


class Server:
    """A server's process.

    Attributes:
        url: where it is, for a broker of ketch; the same after `restart`.
    """

    def __init__(
        self,
        url: str,
        command: Sequence[str],
        folder: Path,
        answers: Callable[[], Awaitable[bool]],
        *,
        environment: Mapping[str, str] | None = None,
        patience: float = 10.0,
    ) -> None:
        """Describe it.

        Args:
            url: see above.
            command: the program and its arguments; it stays in the foreground.
            folder: where it works, and where its output goes: `server.log`.
            answers: whether it serves; an open port alone may be another program's.
            environment: all of its environment; None for this process's own.
            patience: seconds for it to answer, or to end.
        """
        self.url = url
        self.folder = folder
        self._command = command
        self._answers = answers
        self._environment = environment
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """The program's name."""
        return Path(self._command[0]).name

    async def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: it ended or is silent; with the end of its output.
        """
        with (self.folder / "server.log").open("ab") as log:
            # Not asyncio's: such a process belongs to one event loop, and a fixture's isn't its tests'.
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - it returns at once; the caller says what to run
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, env=self._environment
            )
        self._process = process
        try:
            async with asyncio.timeout(self._patience):
                while not await self._answers():
                    if process.poll() is not None:
                        raise RuntimeError(f"{self.name} ended with {process.returncode}: {self._last_words()}")
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            await self.kill()
            raise RuntimeError(f"{self.name} doesn't answer: {self._last_words()}") from None

    async def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await self._ended(process)

    async def _ended(self, process: subprocess.Popen[bytes]) -> None:
        async with asyncio.timeout(self._patience):
            while process.poll() is None:  # noqa: ASYNC110 - a process ends without an event of ours
                await asyncio.sleep(_LOOK)

    async def restart(self) -> None:
        """Kill it, if it still runs, and start it at the same address."""
        await self.kill()
        await self.start()

    async def stop(self) -> None:
        """End it in an orderly way, or kill it."""
        process = self._process
        if process is not None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await self._ended(process)
        await self.kill()

    def _last_words(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-500:] or "(no output)"


def free_port() -> int:
    """Return a loopback TCP port that is free now.

    It is below those that the kernel gives to outgoing connections: of these, one may take it before the server does.
    """
    for _ in range(100):
        port = random.randrange(*_PORTS)  # noqa: S311 - so that processes don't choose the same, it hides nothing
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no port of {_PORTS} is free")


def program(name: str, source: str, *places: str) -> str:
    """Return the path of a server's program.

    Args:
        name: the program.
        source: how to get it, for the error: `pip install …`, `apt install …`.
        places: folders to look in, beside this environment's scripts and PATH.

    Raises:
        RuntimeError: it isn't here.
    """
    for path in (sysconfig.get_path("scripts"), *places, None):
        found = shutil.which(name, path=path)
        if found is not None:
            return found
    raise RuntimeError(f"there is no {name} here: {source}")


async def listens(port: int, greeting: bytes = b"", hello: bytes = b"") -> bool:
    """Tell whether whoever listens on a loopback port begins with `greeting`, once it was told `hello`."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        async with asyncio.timeout(1.0):
            writer.write(hello)
            return not greeting or (await reader.readexactly(len(greeting))) == greeting
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    finally:
        writer.close()
