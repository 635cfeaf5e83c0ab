"""NSQ: a small nsqd of our own, since none comes as a wheel; see `nsqd/`."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .process import Server, free_port, listens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

#: A sign that it is an nsqd: it answers this with a frame, whose length has four bytes.
_HELLO = b"  V2IDENTIFY\n\x00\x00\x00\x02{}"
_ANSWER = b"\x00\x00\x00\x06\x00\x00\x00\x00OK"


class _Orderly(Server):
    """An nsqd that is always told to end: then it writes down what it has in memory, which a crash would lose."""

    async def kill(self) -> None:
        """End it in an orderly way."""
        process = self._process
        if process is not None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await self._ended(process)
        await super().kill()


@asynccontextmanager
async def nsq_server(port: int | None = None, *, command: Sequence[str] = ()) -> AsyncIterator[Server]:
    """Run an nsqd; it keeps what it has in a temporary folder.

    Its `kill` and `restart` are orderly: a crash of nsqd loses what it has in memory.

    Args:
        port: where to listen on 127.0.0.1; None for a free port.
        command: another nsqd's program and arguments, `--port N` is added.

    Raises:
        RuntimeError: it doesn't start.
    """
    port = free_port() if port is None else port
    own = (sys.executable, "-m", "ketch.testing.servers.nsqd")
    with tempfile.TemporaryDirectory(prefix="ketch-nsq-") as name:
        server = _Orderly(
            f"nsq://127.0.0.1:{port}",
            [*(command or own), "--port", str(port)],
            Path(name),
            partial(listens, port, _ANSWER, _HELLO),
        )
        try:
            await server.start()
            yield server
        finally:
            await server.stop()
