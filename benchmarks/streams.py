"""Streams and large messages: ketch against grpc.aio, at the transport: bytes in, bytes out, no protobuf.

    python benchmarks/streams.py [--megabytes 200] [--rounds 2]

down: a server stream of 64 KiB messages; up: a client stream of the same; small: a server stream of 1 KiB messages;
echo: unary calls with 4 MiB each way, one after the other. Client and server are processes of their own; rounds are
interleaved and medians are printed, with the ratio to grpc.aio in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import uvloop

from ketch.transport import Route
from ketch.transports.grpc import GrpcTransport
from ketch.url import Url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MIB = 1024 * 1024
METHOD = {"down": "down", "up": "up", "small": "down", "echo": "echo"}
SIZE = {"down": 65_536, "up": 65_536, "small": 1024, "echo": 4 * MIB}
KINDS = ("grpc.aio", "ketch")
PROTO = "application/protobuf"
#: grpc.aio refuses more than 4 MiB with its envelope unless told.
LIMIT = 8 * MIB
OPTIONS = [("grpc.max_receive_message_length", LIMIT), ("grpc.max_send_message_length", LIMIT)]


def transport() -> GrpcTransport:
    return GrpcTransport.from_url(Url.parse(f"grpc://?max_message_size={LIMIT}"))


# servers


async def serve_ketch() -> tuple[object, str]:
    async def down(_: Any, stream: Any) -> None:
        size, count = map(int, (await stream.receive()).split())
        for _ in range(count):
            await stream.send(bytes(size))

    async def up(_: Any, stream: Any) -> None:
        total = 0
        while (body := await stream.receive()) is not None:
            total += len(body)
        await stream.send(b"%d" % total)

    async def echo(request: Any) -> bytes:
        body: bytes = request.body
        return body

    routes = {"/b/down": Route(stream=down), "/b/up": Route(stream=up), "/b/echo": Route(unary=echo)}
    listener = await transport().listen("127.0.0.1:0", routes)
    return listener, listener.address


async def serve_grpc_aio() -> tuple[object, str]:
    async def down(requests: AsyncIterator[bytes], context: Any) -> None:
        async for order in requests:
            size, count = map(int, order.split())
            for _ in range(count):
                await context.write(bytes(size))

    async def up(requests: AsyncIterator[bytes], context: Any) -> None:
        total = 0
        async for body in requests:
            total += len(body)
        await context.write(b"%d" % total)

    async def echo(body: bytes, _: object) -> bytes:
        return body

    server = grpc.aio.server(options=OPTIONS)
    handlers = {
        "down": grpc.stream_stream_rpc_method_handler(down),
        "up": grpc.stream_stream_rpc_method_handler(up),
        "echo": grpc.unary_unary_rpc_method_handler(echo),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("b", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


async def serve(kind: str) -> None:
    server, address = await (serve_ketch() if kind == "ketch" else serve_grpc_aio())
    print(address, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the parent goes
    del server


# clients


async def ketch(address: str, what: str, size: int, count: int) -> int:
    channel = transport().connect(address)
    if what == "echo":
        return sum([len(await channel.unary("/b/echo", bytes(size), content_type=PROTO)) for _ in range(count)])
    stream = await channel.stream(f"/b/{METHOD[what]}", content_type=PROTO)
    if what == "up":
        for _ in range(count):
            await stream.send(bytes(size))
    else:
        await stream.send(b"%d %d" % (size, count))
    await stream.end()
    total = 0
    while (body := await stream.receive()) is not None:
        total += int(body) if what == "up" else len(body)
    return total


async def grpc_aio(address: str, what: str, size: int, count: int) -> int:
    channel = grpc.aio.insecure_channel(address, options=OPTIONS)
    if what == "echo":
        echo = channel.unary_unary("/b/echo")
        return sum([len(await echo(bytes(size))) for _ in range(count)])
    call = channel.stream_stream(f"/b/{METHOD[what]}")()
    if what == "up":
        for _ in range(count):
            await call.write(bytes(size))
    else:
        await call.write(b"%d %d" % (size, count))
    await call.done_writing()
    return sum([int(body) if what == "up" else len(body) async for body in call])


async def measure(kind: str, address: str, what: str, megabytes: int) -> None:
    size = SIZE[what]
    run = ketch if kind == "ketch" else grpc_aio
    await run(address, what, size, 2)  # to connect and to warm up
    count = max(1, megabytes * MIB // size)
    started = time.perf_counter()
    total = await run(address, what, size, count)
    assert total == size * count
    print(total / MIB / (time.perf_counter() - started), flush=True)


# the parent


def one(kind: str, what: str, megabytes: int) -> float:
    """Return MiB a second, each side in a process of its own."""
    me = [sys.executable, str(Path(__file__).resolve())]
    with subprocess.Popen([*me, "serve", kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        done = subprocess.run(
            [*me, "measure", kind, address, what, str(megabytes)], check=True, stdout=subprocess.PIPE, text=True
        )
        process.terminate()
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(arguments.rounds):
        for what in SIZE:
            megabytes = arguments.megabytes // 10 if what == "small" else arguments.megabytes
            for kind in KINDS:
                found.setdefault((what, kind), []).append(one(kind, what, megabytes))
    print(f"{'':8}{'grpc.aio MiB/s':>16}{'ketch MiB/s':>14}{'x grpc.aio':>12}")
    for what in SIZE:
        stock, ours = (statistics.median(found[what, kind]) for kind in KINDS)
        print(f"{what:8}{stock:16.0f}{ours:14.0f}{ours / stock:12.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(sys.argv[2]))
    elif sys.argv[1:2] == ["measure"]:
        uvloop.run(measure(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])))
    else:
        main()
