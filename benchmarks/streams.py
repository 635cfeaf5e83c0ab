"""Streams and large messages: ketch against grpc.aio, at the transport: bytes in, bytes out, no protobuf.

    python benchmarks/streams.py [--megabytes 200] [--gigabytes 1] [--rounds 2]

down: a server stream of 64 KiB messages; up: a client stream of the same; small: a server stream of 1 KiB messages;
echo: unary calls with 4 MiB each way, one after the other; giga64K and giga1M: server streams of `--gigabytes` in
messages of that size. Client and server are processes of their own; rounds are interleaved and medians are printed,
with the ratio to grpc.aio in the same run. The memory is what a process grew by at most while the bytes went through.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import uvloop
from beside import ask, memory, serving, until_the_parent_goes

from ketch.transport import Route
from ketch.transports.grpc import GrpcTransport
from ketch.url import Url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MIB = 1024 * 1024
METHOD = {"down": "down", "up": "up", "small": "down", "echo": "echo", "giga64K": "down", "giga1M": "down"}
SIZE = {"down": 65_536, "up": 65_536, "small": 1024, "echo": 4 * MIB, "giga64K": 65_536, "giga1M": MIB}
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
    await until_the_parent_goes()
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


async def measure(kind: str, address: str, server: int, what: str, megabytes: int) -> None:
    size = SIZE[what]
    run = ketch if kind == "ketch" else grpc_aio
    await run(address, what, size, 2)  # to connect and to warm up
    count = max(1, megabytes * MIB // size)
    before, mine = memory(server), memory()
    started = time.perf_counter()
    total = await run(address, what, size, count)
    seconds = time.perf_counter() - started
    assert total == size * count
    grown = (memory(server, "VmHWM") - before) / MIB, (memory(what="VmHWM") - mine) / MIB
    print(json.dumps({"rate": total / MIB / seconds, "server": grown[0], "client": grown[1]}), flush=True)


# the parent


def compare(megabytes: dict[str, int], rounds: int) -> dict[tuple[str, str], dict[str, float]]:
    """Measure all in interleaved rounds and return medians: MiB a second, MiB that either side grew by."""
    script = str(Path(__file__).resolve())
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for what, amount in megabytes.items():
            for kind in KINDS:
                with serving(script, kind) as (address, process):
                    found.setdefault((what, kind), []).append(ask(script, kind, address, process, what, amount))
    return {
        key: {name: statistics.median(result[name] for result in results) for name in ("rate", "server", "client")}
        for key, results in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    megabytes = dict.fromkeys(SIZE, arguments.megabytes)
    megabytes["small"] //= 10
    megabytes["giga64K"] = megabytes["giga1M"] = int(1024 * arguments.gigabytes)
    found = compare(megabytes, arguments.rounds)
    names = *(f"{kind} {what}" for what in ("MiB/s", "server +MiB", "client +MiB") for kind in KINDS), "x grpc.aio"
    print(f"{'':9}" + "".join(f"{name:>22}" for name in names))
    for what in SIZE:
        stock, ours = (found[what, kind] for kind in KINDS)
        cells = "".join(f"{side[name]:22.0f}" for name in ("rate", "server", "client") for side in (stock, ours))
        print(f"{what:9}{cells}{ours['rate'] / stock['rate']:22.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(sys.argv[2]))
    elif sys.argv[1:2] == ["measure"]:
        who, where, pid, which, amount = sys.argv[2:]
        uvloop.run(measure(who, where, int(pid), which, int(amount)))
    else:
        main()
