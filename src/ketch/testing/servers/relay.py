"""Relay: a TCP relay that can be cut, as a network between a program and a server."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_READ = 64 * 1024


class Relay:
    """Passes on what comes to a loopback port of its own.

    Attributes:
        target: the `host:port` that connections made from now on lead to.
        address: its own.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.address = ""
        self._whole = asyncio.Event()
        self._whole.set()
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Let nothing through from now on, in either direction; nobody is told, as when a cable is cut."""
        self._whole.clear()

    def heal(self) -> None:
        """Let through again what waited, and what comes."""
        self._whole.set()

    def reset(self) -> None:
        """Break the connections there are; new ones lead to `target`."""
        for writer in self._writers:
            writer.transport.abort()

    def last_words(self, words: bytes) -> None:
        """Say something to all clients as if the server had, and close their connections."""
        for writer in list(self._clients):
            writer.write(words)
            writer.close()

    async def stop(self) -> None:
        """Break everything."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        self.reset()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        self._writers.add(writer)
        self._clients.add(writer)
        ours = {writer}
        try:
            await self._whole.wait()
            host, _, port = self.target.rpartition(":")
            there, back = await asyncio.open_connection(host, int(port))
            ours.add(back)
            self._writers.add(back)
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        except OSError:
            pass  # one side is gone; both are closed
        finally:
            self._clients.discard(writer)
            for one in ours:
                self._writers.discard(one)
                one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_READ):
            await self._whole.wait()
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()


@asynccontextmanager
async def relay(target: str) -> AsyncIterator[Relay]:
    """Run a relay to `host:port`."""
    running = Relay(target)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()
