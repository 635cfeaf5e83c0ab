"""Unary calls: ketch against grpc.aio, and against bare length-prefixed frames, the practical limit in this language.

    python benchmarks/rpc.py [--seconds 2] [--rounds 3]

Client and server are processes of their own, the messages are the same protobuf messages for all; rounds are
interleaved, so that a busy machine hurts everybody alike, and medians are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import uvloop

sys.path.insert(0, str(Path(__file__).parent / "proto"))
from bench_pb2 import Ack, User

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Call = Callable[[], Awaitable[Ack]]

METHOD = "/ketch.bench.v1.Users/Create"
USER = User(id="0f0e", name="Ewan Valentine", email="ewan.valentine89@gmail.com", company="BBC")
#: (client, server)
PAIRS = [("grpc.aio", "grpc.aio"), ("grpc.aio", "ketch"), ("ketch", "ketch"), ("bare", "bare")]
IN_FLIGHT = (1, 64)


async def create(user: User) -> Ack:
    """Handle a call; the same handler for all."""
    return Ack(id=user.id)


# servers


async def serve_ketch() -> str:
    from bench_ketch import Users

    from ketch import Service

    class Servicer(Users):
        async def create(self, request: User, /) -> Ack:
            return await create(request)

    service = Service("bench", registry="memory", broker="memory")
    service.serve(Servicer())
    await service.__aenter__()
    SERVERS.append(service)
    return service.address


async def serve_grpc_aio() -> str:
    async def handle(user: User, _: object) -> Ack:
        return await create(user)

    unary = grpc.unary_unary_rpc_method_handler(handle, User.FromString, Ack.SerializeToString)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("ketch.bench.v1.Users", {"Create": unary}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    SERVERS.append(server)
    return f"127.0.0.1:{port}"


SERVERS: list[object] = []


class Frames(asyncio.Protocol):
    """Four bytes of length, four of a number, a message; writes joined, as ketch joins them."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.rest = b""
        self.out: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def send(self, number: int, body: bytes) -> None:
        if not self.out:
            self.loop.call_soon(self.flush)
        self.out.append(len(body).to_bytes(4) + number.to_bytes(4) + body)
        if len(self.out) >= 16:
            self.flush()

    def flush(self) -> None:
        if self.out:
            self.transport.write(b"".join(self.out))
            self.out.clear()

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        at = 0
        while len(data) - at >= 8:
            stop = at + 8 + int.from_bytes(data[at : at + 4])
            if stop > len(data):
                break
            self.on_frame(int.from_bytes(data[at + 4 : at + 8]), data[at + 8 : stop])
            at = stop
        self.rest = data[at:]


class FrameServer(Frames):
    def on_frame(self, number: int, body: bytes) -> None:
        self.loop.create_task(self.answer(number, body))

    async def answer(self, number: int, body: bytes) -> None:
        self.send(number, (await create(User.FromString(body))).SerializeToString())


class FrameClient(Frames):
    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[int, asyncio.Future[Ack]] = {}
        self.last = 0

    def on_frame(self, number: int, body: bytes) -> None:
        self.waiting.pop(number).set_result(Ack.FromString(body))

    async def call(self) -> Ack:
        self.last += 1
        reply = self.waiting[self.last] = self.loop.create_future()
        self.send(self.last, USER.SerializeToString())
        return await reply


async def serve_bare() -> str:
    server = await asyncio.get_running_loop().create_server(FrameServer, "127.0.0.1", 0)
    SERVERS.append(server)
    return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


# clients


async def connect_ketch(address: str) -> Call:
    from bench_ketch import UsersStub

    from ketch import Client

    client = Client.from_env(registry=f"static://?ketch.bench.v1.Users={address}")
    await client.__aenter__()
    users = client.stub(UsersStub)
    return lambda: users.create(USER, timeout=10)


async def connect_grpc_aio(address: str) -> Call:
    channel = grpc.aio.insecure_channel(address)
    stub = channel.unary_unary(METHOD, User.SerializeToString, Ack.FromString)
    return lambda: stub(USER, timeout=10)


async def connect_bare(address: str) -> Call:
    host, port = address.split(":")
    _, client = await asyncio.get_running_loop().create_connection(FrameClient, host, int(port))
    return client.call


SERVE = {"ketch": serve_ketch, "grpc.aio": serve_grpc_aio, "bare": serve_bare}
CONNECT = {"ketch": connect_ketch, "grpc.aio": connect_grpc_aio, "bare": connect_bare}


async def serve(kind: str) -> None:
    print(await SERVE[kind](), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the parent goes


async def measure(kind: str, address: str, in_flight: int, seconds: float) -> None:
    call = await CONNECT[kind](address)
    taken: list[float] = []

    async def work(until: float) -> None:
        clock = time.perf_counter
        while (started := clock()) < until:
            reply = await call()
            taken.append(clock() - started)
            assert reply.id == USER.id

    await asyncio.gather(*(work(time.perf_counter() + 0.3) for _ in range(in_flight)))  # to warm up
    taken.clear()
    started = time.perf_counter()
    await asyncio.gather(*(work(started + seconds) for _ in range(in_flight)))
    elapsed = time.perf_counter() - started
    taken.sort()
    p50, p99 = (taken[int(len(taken) * share)] * 1e6 for share in (0.5, 0.99))
    print(json.dumps({"rate": len(taken) / elapsed, "p50": p50, "p99": p99}), flush=True)


# the parent


def one(client: str, server: str, in_flight: int, seconds: float) -> dict[str, float]:
    """Measure one pair once, each side in a process of its own."""
    me = [sys.executable, str(Path(__file__).resolve())]
    with subprocess.Popen([*me, "serve", server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        arguments = ["measure", client, address, str(in_flight), str(seconds)]
        done = subprocess.run([*me, *arguments], check=True, stdout=subprocess.PIPE, text=True)
        process.terminate()
    result: dict[str, float] = json.loads(done.stdout)
    return result


def compare(seconds: float, rounds: int) -> dict[str, object]:
    """Measure all pairs in interleaved rounds and print the medians as a table."""
    found: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for in_flight in IN_FLIGHT:
            for client, server in PAIRS:
                found.setdefault((client, server, in_flight), []).append(one(client, server, in_flight, seconds))
    medians = {
        key: {name: statistics.median(result[name] for result in results) for name in ("rate", "p50", "p99")}
        for key, results in found.items()
    }
    names = "in flight", "calls/s", "p50 us", "p99 us", "x grpc.aio", "p50 x", "p99 x", "of bare"
    print(f"{'client':10}{'server':10}" + "".join(f"{name:>11}" for name in names))
    for (client, server, in_flight), result in medians.items():
        stock = medians["grpc.aio", "grpc.aio", in_flight]
        bare = medians["bare", "bare", in_flight]["rate"]
        print(
            f"{client:10}{server:10}{in_flight:11}{result['rate']:11,.0f}{result['p50']:11.0f}{result['p99']:11.0f}"
            f"{result['rate'] / stock['rate']:11.2f}{result['p50'] / stock['p50']:11.2f}"
            f"{result['p99'] / stock['p99']:11.2f}{result['rate'] / bare:11.2f}"
        )
    return {"/".join(map(str, key)): value for key, value in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    compare(arguments.seconds, arguments.rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(sys.argv[2]))
    elif sys.argv[1:2] == ["measure"]:
        uvloop.run(measure(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))
    else:
        main()
