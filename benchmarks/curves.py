"""Cost per call over the number of methods, of calls in flight and of connections: a table and a picture.

    python benchmarks/curves.py [--seconds 0.5] [--rounds 3] [--picture docs/performance/curves.svg]

ketch through typed stub and servicer, grpc.aio, and bare frames, the practical limit. Calls go round robin over all
methods and all connections, so that nothing that is kept for the last method or peer can help; where the number in
flight isn't what varies it is 64. Cost is processor time of client and server together for one call: other work on the
machine makes it wait but doesn't add to it. The elapsed time is printed beside it. Rounds are interleaved, medians are
printed; `spread` is the dearest point of a curve over the cheapest.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import rpc
import uvloop
from beside import ask, cpu, serving, until_the_parent_goes
from picture import draw
from rpc import USER, Ack, User

from ketch import Client, Service
from ketch.rpc import Method, Reply, Servicer, Stub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Calls = list[Callable[[], Awaitable[Ack]]]
    Close = Callable[[], Awaitable[object]]

CONTRACT = "ketch.bench.v1.Many"
KINDS = ("ketch", "grpc.aio", "bare")
#: What varies -> its values.
CURVES = {
    "methods": (1, 10, 100, 1000),
    "calls in flight": (1, 4, 16, 64, 256, 1000),
    "connections": (1, 10, 100, 1000),
}
USUAL = {"methods": 1, "calls in flight": 64, "connections": 1}
#: Connections that are made at a time.
AT_ONCE = 50


def name(number: int) -> str:
    """Return a method's name; all are of one length."""
    return f"Create{number:04}"


# servers


async def serve_ketch(methods: int) -> tuple[object, str]:
    async def handle(_: object, request: User, /) -> Ack:
        return await rpc.create(request)

    served = {name(number).lower(): Method(CONTRACT, name(number), User, Ack) for number in range(methods)}
    body = {"contract": CONTRACT, "methods": served, **dict.fromkeys(served, handle)}
    servicer: Servicer = type("Many", (Servicer,), body)()
    service = Service("bench", registry="memory", broker="memory")
    service.serve(servicer)
    await service.__aenter__()
    return service, service.address


async def serve_grpc_aio(methods: int) -> tuple[object, str]:
    async def handle(user: User, _: object) -> Ack:
        return await rpc.create(user)

    unary = grpc.unary_unary_rpc_method_handler(handle, User.FromString, Ack.SerializeToString)
    server = grpc.aio.server()
    handlers = {name(number): unary for number in range(methods)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(CONTRACT, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


async def serve_bare(_: int) -> tuple[object, str]:
    return rpc.SERVERS, await rpc.serve_bare()


SERVE = {"ketch": serve_ketch, "grpc.aio": serve_grpc_aio, "bare": serve_bare}


async def serve(kind: str, methods: int) -> None:
    server, address = await SERVE[kind](methods)
    print(address, flush=True)
    await until_the_parent_goes()
    del server


# clients


class Many(Stub):
    """Calls any method."""

    contract = CONTRACT

    def call(self, method: Method[User, Ack]) -> Reply[Ack]:
        """Call one."""
        return self._unary(method, USER, 10, None)


async def connect_ketch(address: str, methods: int) -> tuple[Calls, Close]:
    client = Client.from_env(registry=f"static://?{CONTRACT}={address}")
    await client.__aenter__()
    call = client.stub(Many).call
    return [partial(call, Method(CONTRACT, name(number), User, Ack)) for number in range(methods)], client.stop


async def connect_grpc_aio(address: str, methods: int) -> tuple[Calls, Close]:
    channel = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])

    def caller(number: int) -> Callable[[], Awaitable[Ack]]:
        stub = channel.unary_unary(f"/{CONTRACT}/{name(number)}", User.SerializeToString, Ack.FromString)
        return lambda: stub(USER, timeout=10)

    return [caller(number) for number in range(methods)], channel.close


async def connect_bare(address: str, _: int) -> tuple[Calls, Close]:
    host, port = address.split(":")
    transport, client = await asyncio.get_running_loop().create_connection(rpc.FrameClient, host, int(port))

    async def close() -> None:
        transport.close()

    return [client.call], close


CONNECT = {"ketch": connect_ketch, "grpc.aio": connect_grpc_aio, "bare": connect_bare}


async def point(
    kind: str, address: str, server: int, seconds: float, methods: int, in_flight: int, connections: int
) -> dict[str, float]:
    """Measure one point: microseconds of processor time and of elapsed time per call."""
    calls: Calls = []
    closes: list[Close] = []
    for start in range(0, connections, AT_ONCE):
        size = min(AT_ONCE, connections - start)
        made = await asyncio.gather(*(CONNECT[kind](address, methods) for _ in range(size)))
        closes += [close for _, close in made]
        await asyncio.gather(*(some[0]() for some, _ in made))
        calls += [call for some, _ in made for call in some]
    turn = itertools.cycle(calls)
    done = 0

    async def work(until: float) -> None:
        nonlocal done
        while time.perf_counter() < until:
            reply = await next(turn)()
            assert reply.id == USER.id
            done += 1

    await asyncio.gather(*(work(time.perf_counter() + seconds / 2) for _ in range(in_flight)))  # to warm up
    done = 0
    began, spent = time.perf_counter(), time.process_time() + cpu(server)
    await asyncio.gather(*(work(began + seconds) for _ in range(in_flight)))
    elapsed, spent = time.perf_counter() - began, time.process_time() + cpu(server) - spent
    await asyncio.gather(*(close() for close in closes))
    return {"cpu": spent / done * 1e6, "elapsed": elapsed / done * 1e6}


async def measure(kind: str, curve: str, address: str, server: int, seconds: float, values: list[int]) -> None:
    found = []
    for value in values:
        usual = {**USUAL, curve: value}
        found.append(await point(kind, address, server, seconds, *usual.values()))
    print(json.dumps(found), flush=True)


# the parent


def runs() -> list[tuple[str, str, tuple[int, ...]]]:
    """Return what one client process measures: of methods one number, since the server has to have as many."""
    every = []
    for curve, values in CURVES.items():
        for part in [(value,) for value in values] if curve == "methods" else [values]:
            every += [(kind, curve, part) for kind in KINDS if (kind, curve) != ("bare", "methods")]
    return every


def compare(seconds: float, rounds: int) -> dict[tuple[str, str, int], dict[str, float]]:
    """Measure all points in interleaved rounds and return medians."""
    script = str(Path(__file__).resolve())
    found: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for kind, curve, values in runs():
            with serving(script, kind, values[0] if curve == "methods" else 1) as (address, process):
                points = ask(script, kind, curve, address, process, seconds, *values)
            for value, result in zip(values, points, strict=True):
                found.setdefault((curve, kind, value), []).append(result)
    return {
        key: {what: statistics.median(result[what] for result in results) for what in ("cpu", "elapsed")}
        for key, results in found.items()
    }


def table(found: dict[tuple[str, str, int], dict[str, float]]) -> None:
    """Print processor time, with elapsed time in brackets, in microseconds per call."""
    for curve, values in CURVES.items():
        print(f"| {curve} | " + " | ".join(f"{value:,}" for value in values) + " | spread |")
        print("| --- |" + " ---: |" * (len(values) + 1))
        for kind in KINDS:
            points = [found[curve, kind, value] for value in values if (curve, kind, value) in found]
            if points:
                cells = [f"{result['cpu']:.0f} ({result['elapsed']:.0f})" for result in points]
                costs = [result["cpu"] for result in points]
                print(f"| {kind} | " + " | ".join(cells) + f" | {max(costs) / min(costs):.2f} |")
        print()


def panels(found: dict[tuple[str, str, int], dict[str, float]]) -> dict[str, Any]:
    """Return what the picture shows."""
    shown: dict[str, Any] = {curve: {} for curve in CURVES}
    for (curve, kind, value), result in found.items():
        shown[curve].setdefault(kind, []).append((value, result["cpu"]))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--picture", type=Path, help="where to write the SVG")
    arguments = parser.parse_args()
    found = compare(arguments.seconds, arguments.rounds)
    table(found)
    if arguments.picture:
        arguments.picture.parent.mkdir(parents=True, exist_ok=True)
        arguments.picture.write_text(
            draw("Cost of a unary call, client and server together", "µs of processor time per call", panels(found))
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(sys.argv[2], int(sys.argv[3])))
    elif sys.argv[1:2] == ["measure"]:
        who, what, where, pid, span, *numbers = sys.argv[2:]
        uvloop.run(measure(who, what, where, int(pid), float(span), list(map(int, numbers))))
    else:
        main()
