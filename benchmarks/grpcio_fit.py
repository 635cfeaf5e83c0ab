"""What a team gains that moves nothing but the server, or the channel: grpcio's own servicers and stubs over ketch.

    python benchmarks/grpcio_fit.py [--seconds 2] [--rounds 3]

The same servicer's handler on grpc.aio's server and hosted by ketch; the same stub's method over grpc.aio's channel and
over ketch's. Client and server are processes of their own; rounds are interleaved, and medians are printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import rpc
import uvloop
from bench_pb2 import Ack, User

from ketch import Service, grpcio

if TYPE_CHECKING:
    from rpc import Call

PAIRS = [("grpc.aio", "grpc.aio"), ("grpc.aio", "ketch"), ("ketch", "grpc.aio"), ("ketch", "ketch")]


async def serve_hosted() -> str:
    async def handle(user: User, _: object) -> Ack:
        return await rpc.create(user)

    handlers = {"Create": grpc.unary_unary_rpc_method_handler(handle, User.FromString, Ack.SerializeToString)}
    service = Service("bench", registry="memory", broker="memory")
    grpcio.server(service).add_registered_method_handlers("ketch.bench.v1.Users", handlers)
    await service.__aenter__()
    rpc.SERVERS.append(service)
    return service.address


async def connect_stub(address: str) -> Call:
    stub = grpcio.channel(address).unary_unary(rpc.METHOD, User.SerializeToString, Ack.FromString)
    return lambda: stub(rpc.USER, timeout=10)


rpc.SERVE["ketch"] = serve_hosted
rpc.CONNECT["ketch"] = connect_stub


def one(client: str, server: str, in_flight: int, seconds: float) -> float:
    """Return the calls per second of one pair, each side in a process of its own."""
    me = [sys.executable, str(Path(__file__).resolve())]
    with subprocess.Popen([*me, "serve", server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        arguments = ["measure", client, address, str(in_flight), str(seconds)]
        done = subprocess.run([*me, *arguments], check=True, stdout=subprocess.PIPE, text=True)
        process.terminate()
    return float(json.loads(done.stdout)["rate"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    keys = [(in_flight, *pair) for in_flight in rpc.IN_FLIGHT for pair in PAIRS]
    rates: dict[tuple[int, str, str], list[float]] = {key: [] for key in keys}
    for _ in range(arguments.rounds):
        for in_flight, client, server in keys:
            rates[in_flight, client, server].append(one(client, server, in_flight, arguments.seconds))
    print(f"{'in flight':>9}  {'channel':10}{'server':10}{'calls/s':>10}{'x grpc.aio':>12}")
    for in_flight, client, server in keys:
        rate = statistics.median(rates[in_flight, client, server])
        stock = statistics.median(rates[in_flight, "grpc.aio", "grpc.aio"])
        print(f"{in_flight:9}  {client:10}{server:10}{rate:10,.0f}{rate / stock:12.1f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(rpc.serve(sys.argv[2]))
    elif sys.argv[1:2] == ["measure"]:
        uvloop.run(rpc.measure(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))
    else:
        main()
