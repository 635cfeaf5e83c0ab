"""Streams over a slow link: ketch against grpc.aio, through a proxy that delays each byte.

    python benchmarks/latency.py [--delays 5 25 50 100] [--megabytes 64] [--rounds 1]

A window has to hold what is on its way in one round trip, or the sender stands idle. down: a server stream of 64 KiB
messages; up: a client stream of the same. `--delays` are milliseconds each way. Client, server and proxy are processes
of their own; the connection is new each time, so that the time to find the window counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen

import uvloop
from beside import ask, serving, until_the_parent_goes
from streams import KINDS, MIB, SIZE, grpc_aio, ketch, serve


class Delayed(asyncio.Protocol):
    """One end of a link: what comes in goes out at the other end, later."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.other: Delayed | None = None
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # TCP has these
        for data in self.early:
            self.write(data)

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self.delay, self.other.write, data)

    def write(self, data: bytes) -> None:
        if self.transport is None:
            self.early.append(data)
        elif not self.transport.is_closing():
            self.transport.write(data)

    def connection_lost(self, _: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


async def proxy(address: str, delay: float) -> None:
    loop = asyncio.get_running_loop()
    host, port = address.split(":")
    going = set()

    def accept() -> Delayed:
        near, far = Delayed(delay), Delayed(delay)
        near.other, far.other = far, near
        task = loop.create_task(loop.create_connection(lambda: far, host, int(port)))
        going.add(task)
        return near

    server = await loop.create_server(accept, "127.0.0.1", 0)
    print(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await until_the_parent_goes()


async def measure(kind: str, address: str, what: str, megabytes: int) -> None:
    run = ketch if kind == "ketch" else grpc_aio
    count = megabytes * MIB // SIZE[what]
    started = time.perf_counter()
    total = await run(address, what, SIZE[what], count)
    assert total == SIZE[what] * count
    print(json.dumps(total / MIB / (time.perf_counter() - started)), flush=True)


def one(kind: str, what: str, delay: float, megabytes: int) -> float:
    """Return MiB a second."""
    script = str(Path(__file__).resolve())
    with serving(script, kind) as (address, _):
        command = [sys.executable, script, "proxy", address, str(delay)]
        with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
            assert process.stdout is not None
            found: float = ask(script, kind, process.stdout.readline().strip(), what, megabytes)
            process.terminate()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delays", type=float, nargs="+", default=[5, 25, 50, 100])
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{'':6}{'ms each way':>12}{'grpc.aio MiB/s':>16}{'ketch MiB/s':>13}{'x grpc.aio':>12}")
    for what in ("down", "up"):
        for delay in arguments.delays:
            rates = {kind: [] for kind in KINDS}
            for _ in range(arguments.rounds):
                for kind in KINDS:
                    rates[kind].append(one(kind, what, delay / 1000, arguments.megabytes))
            stock, ours = (statistics.median(rates[kind]) for kind in KINDS)
            print(f"{what:6}{delay:12.0f}{stock:16.1f}{ours:13.1f}{ours / stock:12.2f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(sys.argv[2]))
    elif sys.argv[1:2] == ["proxy"]:
        uvloop.run(proxy(sys.argv[2], float(sys.argv[3])))
    elif sys.argv[1:2] == ["measure"]:
        uvloop.run(measure(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])))
    else:
        main()
