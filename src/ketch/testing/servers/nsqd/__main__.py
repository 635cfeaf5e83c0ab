"""Run the server: `python -m ketch.testing.servers.nsqd --port 4150 --state nsqd.json`."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from .client import Client
from .state import State


async def serve(port: int, file: Path) -> None:
    """Serve until SIGTERM, then write down what is left."""
    state = State()
    state.load(file)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Client(state, reader, writer).serve()

    server = await asyncio.start_server(connected, "127.0.0.1", port, limit=8 * 1024 * 1024)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    server.close()
    state.save(file)


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=4150, help="where to listen on 127.0.0.1")
    parser.add_argument("--state", type=Path, default=Path("nsqd.json"), help="what is kept over its end")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.state))


if __name__ == "__main__":
    main()
