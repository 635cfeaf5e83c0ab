"""Run the server: `python -m ketch.testing.servers.pubsub --port 8085 --journal pubsub.journal`."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

import grpc
import grpc.aio

from .journal import Journal
from .service import KINDS, Service


async def serve(port: int, journal: Path, shortest: int, tls: tuple[Path, Path] | None) -> None:
    """Serve until SIGTERM."""
    service = Service(Journal(journal, KINDS), shortest)
    options = (("grpc.max_receive_message_length", 20_000_000), ("grpc.so_reuseport", 0))
    server = grpc.aio.server(options=options)
    for name, methods in service.methods().items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
    if tls is None:
        server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        cert, key = (file.read_bytes() for file in tls)
        server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([(key, cert)]))
    await server.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.stop(grace=None)


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8085, help="where to listen on 127.0.0.1")
    parser.add_argument("--journal", type=Path, default=Path("pubsub.journal"), help="what survives its end")
    parser.add_argument("--shortest-deadline", type=int, default=10, help="seconds that an ack deadline has at least")
    parser.add_argument("--tls", type=Path, nargs=2, metavar=("CERT", "KEY"), help="serve over TLS; PEM files")
    arguments = parser.parse_args()
    tls = tuple(arguments.tls) if arguments.tls else None
    asyncio.run(serve(arguments.port, arguments.journal, arguments.shortest_deadline, tls))


if __name__ == "__main__":
    main()
