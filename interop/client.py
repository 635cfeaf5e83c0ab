"""gRPC's interop client, on ketch: `python interop/client.py --test_case large_unary --server_port 10000`.

Several cases may be given, with commas between; `all` runs all of them. Each is said to have passed or not on a line
of its own; the exit code is the number of those that didn't.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import traceback
from functools import partial

from cases import CASES, Server
from contract.test_ketch import TestService
from sizes import TRANSPORT

from ketch import Client
from ketch.registries.static import StaticRegistry
from ketch.registry import Instance

#: Seconds for one case.
LIMIT = 120.0


async def run(names: list[str], address: str, flags: list[str]) -> int:
    """Run cases against a server; return how many failed."""
    make = partial(new_client, address, flags)
    failed = 0
    async with make() as client:
        channel = client.options.transport.connect(address)
        server = Server(client, channel, make)
        for name in names:
            try:
                async with asyncio.timeout(LIMIT):
                    await CASES[name](server)
            except Exception:  # noqa: BLE001 - whatever it is, the case has failed and the next one is run
                failed += 1
                print(f"{name}: failed\n{traceback.format_exc()}", flush=True)
            else:
                print(f"{name}: passed", flush=True)
        await channel.close()
    return failed


def new_client(address: str, flags: list[str]) -> Client:
    """Return a client that finds the server."""
    registry = StaticRegistry([Instance(TestService.contract, "peer", address)])
    return Client.from_env(flags, environ={}, registry=registry, broker="memory", transport=TRANSPORT)


def main() -> int:
    """Return how many cases failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test_case", default="all", help=f"all, or of {', '.join(CASES)}")
    parser.add_argument("--server_host", default="127.0.0.1")
    parser.add_argument("--server_port", type=int, default=10_000)
    parser.add_argument("--tls_ca", help="a file of roots: use TLS")
    parser.add_argument("--server_host_override", help="what the server's certificate is valid for")
    arguments = parser.parse_args()
    names = list(CASES) if arguments.test_case == "all" else arguments.test_case.split(",")
    tls = {"ca": arguments.tls_ca, "server-name": arguments.server_host_override}
    flags = [text for name, value in tls.items() if value for text in (f"--client-tls-{name}", value)]
    address = f"{arguments.server_host}:{arguments.server_port}"
    return asyncio.run(run(names, address, flags))


if __name__ == "__main__":
    sys.exit(main())
