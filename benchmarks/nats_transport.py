"""Calls over NATS: ketch's stubs with `MICRO_TRANSPORT=nats` against nats-py's request and reply.

    python benchmarks/nats_transport.py [--seconds 2] [--rounds 3]

Client and server are processes of their own on one NATS server, the messages are the same protobuf messages for both;
rounds are interleaved, so that a busy machine hurts both alike, and medians are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from beside import ask, serving, until_the_parent_goes

sys.path.insert(0, str(Path(__file__).parent / "proto"))
from bench_pb2 import Ack, User

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Call = Callable[[], Awaitable[Ack]]

USER = User(id="0f0e", name="Ewan Valentine", email="ewan.valentine89@gmail.com", company="BBC")
SUBJECT = "bench.users.create"
IN_FLIGHT = (1, 64)
KINDS = ("nats-py", "ketch")


async def serve_raw(url: str) -> None:
    import nats

    client = await nats.connect(url)

    async def handle(message: nats.aio.msg.Msg) -> None:
        await message.respond(Ack(id=User.FromString(message.data).id).SerializeToString())

    await client.subscribe(SUBJECT, queue="bench", cb=handle)
    await client.flush()
    print("ready", flush=True)
    await until_the_parent_goes()


async def serve_ketch(url: str) -> None:
    from bench_ketch import Users

    from ketch import Service

    class Servicer(Users):
        async def create(self, request: User, /) -> Ack:
            return Ack(id=request.id)

    service = Service("bench", registry="memory", broker="memory", transport=url)
    service.serve(Servicer())
    async with service:
        print("ready", flush=True)
        await until_the_parent_goes()


async def connect_raw(url: str) -> Call:
    import nats

    client = await nats.connect(url)

    async def call() -> Ack:
        return Ack.FromString((await client.request(SUBJECT, USER.SerializeToString(), timeout=10)).data)

    return call


async def connect_ketch(url: str) -> Call:
    from bench_ketch import UsersStub

    from ketch import Client

    client = Client.from_env(registry="static://?ketch.bench.v1.Users=ketch-rpc.bench", transport=url)
    await client.__aenter__()
    users = client.stub(UsersStub)
    return lambda: users.create(USER, timeout=10)


async def measure(kind: str, url: str, in_flight: int, seconds: float) -> None:
    """Print calls a second and latencies as JSON."""
    call = await (connect_raw if kind == "nats-py" else connect_ketch)(url)
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


async def compare(seconds: float, rounds: int) -> None:
    """Measure both in interleaved rounds and print the medians."""
    from ketch.testing.servers import nats_server

    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    async with nats_server() as server:
        for _ in range(rounds):
            for in_flight in IN_FLIGHT:
                for kind in KINDS:
                    with serving(__file__, kind, server.url):
                        result = await asyncio.to_thread(ask, __file__, kind, server.url, in_flight, seconds)
                    found.setdefault((kind, in_flight), []).append(result)
    print(f"{'':10}" + "".join(f"{name:>12}" for name in ("in flight", "calls/s", "p50 us", "p99 us", "x nats-py")))
    for (kind, in_flight), results in found.items():
        rate, p50, p99 = (statistics.median(result[name] for result in results) for name in ("rate", "p50", "p99"))
        raw = statistics.median(result["rate"] for result in found["nats-py", in_flight])
        print(f"{kind:10}{in_flight:12}{rate:12,.0f}{p50:12,.0f}{p99:12,.0f}{rate / raw:12.2f}")


def main() -> None:
    """Serve, measure, or compare."""
    if sys.argv[1:2] == ["serve"]:
        uvloop.run((serve_raw if sys.argv[2] == "nats-py" else serve_ketch)(sys.argv[3]))
    elif sys.argv[1:2] == ["measure"]:
        uvloop.run(measure(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--seconds", type=float, default=2.0)
        parser.add_argument("--rounds", type=int, default=3)
        arguments = parser.parse_args()
        asyncio.run(compare(arguments.seconds, arguments.rounds))


if __name__ == "__main__":
    main()
