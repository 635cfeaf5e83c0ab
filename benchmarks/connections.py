"""Idle connections: what a server holds for each of 10,000 clients that called once and then say nothing.

    python benchmarks/connections.py [--count 10000]

The same client, ketch's, in a process of its own, makes the connections to ketch's server and to grpc.aio's, with one
real call on each. Printed are the server's resident memory before the first connection and with all of them, the same
after another call on every one, and the time until each had its first. A contender that manages fewer shows how many.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import sys
import time
from pathlib import Path

import rpc
import uvloop
from beside import ask, memory, serving, until_the_parent_goes
from rpc import METHOD, USER, Ack

from ketch.errors import KetchError
from ketch.transports.grpc import GrpcTransport

KINDS = ("ketch", "grpc.aio")
PROTO = "application/protobuf"
AT_ONCE = 100
MIB = 2**20


def allow_files() -> None:
    """Raise the limit of open files as far as we may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def serve(kind: str) -> None:
    allow_files()
    print(await rpc.SERVE[kind](), flush=True)
    await until_the_parent_goes()


async def measure(address: str, server: int, count: int) -> None:
    allow_files()
    transport = GrpcTransport()
    channels = [transport.connect(address) for _ in range(count)]
    body = USER.SerializeToString()

    async def call_all() -> int:
        """Call once on each channel; stops at the first failure and returns how many were served."""
        for start in range(0, count, AT_ONCE):
            some = channels[start : start + AT_ONCE]
            calls = [channel.unary(METHOD, body, content_type=PROTO, timeout=30) for channel in some]
            for number, reply in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
                if isinstance(reply, KetchError):
                    print(f"connection {start + number}: {reply}", file=sys.stderr)
                    return start + number
                assert isinstance(reply, bytes)
                assert Ack.FromString(reply).id == USER.id
        return count

    before, mine = memory(server), memory()
    began = time.perf_counter()
    served = await call_all()
    seconds = time.perf_counter() - began
    gc.collect()
    await asyncio.sleep(0.5)  # what the server still does about the last call
    after, ours = memory(server), memory()
    if served == count:
        served = await call_all()
    again = memory(server)
    result = {"served": served, "before": before, "after": after, "again": again}
    print(json.dumps({**result, "seconds": seconds, "client": (ours - mine) / served}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    count = parser.parse_args().count
    script = str(Path(__file__).resolve())
    print(
        "| server | connections | MiB before | MiB with them | MiB after another call on each | bytes each | seconds |"
    )
    print("| --- |" + " ---: |" * 6)
    for kind in KINDS:
        with serving(script, kind) as (address, process):
            found = ask(script, address, process, count)
        served = found["served"]
        print(
            f"| {kind} | {served:,} | {found['before'] / MIB:.1f} | {found['after'] / MIB:.1f} | "
            f"{found['again'] / MIB:.1f} | {(found['after'] - found['before']) / served:,.0f} | "
            f"{found['seconds']:.1f} |"
        )
    print(f"\nA ketch client takes {found['client']:,.0f} bytes for each connection.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(sys.argv[2]))
    elif sys.argv[1:2] == ["measure"]:
        uvloop.run(measure(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    else:
        main()
