"""Workers: what N processes behind one port serve, against as many grpc.aio servers that share a port.

    python benchmarks/workers.py [--seconds 1] [--rounds 4] [--most 4] [--picture docs/pictures/workers.svg]

Two processes make the load: with ketch's client, which finds all workers, or with stock clients that have eight
connections each to the shared port. The handler does nothing; or half a millisecond of work in Python; or it blocks its
event loop for two milliseconds without using a core, as a synchronous driver does. Beside the calls per second it says
how many calls the servers handled per second of their processor time: on a machine with fewer cores than processes the
first is bounded by the cores, unless handlers only block; the second shows whether workers hinder each other. Rounds
are interleaved; the best is printed, since what others do on the machine only takes away.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio

sys.path.insert(0, str(Path(__file__).parent / "proto"))
sys.path.insert(0, str(Path(__file__).parent))
from bench_ketch import Users, UsersStub
from bench_pb2 import Ack, User
from beside import cpu, until_the_parent_goes
from picture import draw

from ketch import Client, Service
from ketch.workers.console import ask_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

SCRIPT = str(Path(__file__))
METHOD = "/ketch.bench.v1.Users/Create"
#: What a busy handler adds up; about half a millisecond.
WORK = range(18_000)
HANDLERS = {"empty handler": "", "0.5 ms of work": "busy", "2 ms blocked": "blocked"}
BLOCKED = 0.002
#: name -> servers, client
PAIRS = {
    "ketch": ("ketch", "ketch"),
    "stock clients": ("ketch", "grpc.aio"),
    "grpc.aio": ("grpc.aio", "grpc.aio"),
}
LOADERS, CONNECTIONS, IN_FLIGHT = 2, 8, 64


async def create(user: User) -> Ack:
    """Handle a call; the same handler for all."""
    if user.name == "busy":
        sum(WORK)
    elif user.name == "blocked":
        time.sleep(BLOCKED)  # noqa: ASYNC251 - on purpose
    return Ack(id=user.id)


class Servicer(Users):
    """For `ketch run workers:service`."""

    async def create(self, request: User, /) -> Ack:
        """Handle a call."""
        return await create(request)


service = Service("bench", broker="memory")
service.serve(Servicer())


# servers


@contextmanager
def ketch(count: int) -> Iterator[tuple[str, str, list[int]]]:
    """Run `count` workers; yields the runtime directory, the shared address and the processes."""
    with tempfile.TemporaryDirectory() as runtime:
        command = [sys.executable, "-m", "ketch", "run", "workers:service", "--workers", str(count)]
        command += ["--app-dir", str(Path(SCRIPT).parent), "--log-level", "ERROR"]
        environ = {**os.environ, "XDG_RUNTIME_DIR": runtime}
        with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as process:
            try:
                while not (found := ask_all(runtime)) or found[0].serving < count:
                    time.sleep(0.1)
                yield runtime, found[0].addresses[0], [line.pid for line in found[0].workers]
            finally:
                process.terminate()


@contextmanager
def grpc_aio(count: int) -> Iterator[tuple[str, str, list[int]]]:
    """Run `count` servers of grpc.aio on one port; yields as `ketch`."""
    running: list[subprocess.Popen[str]] = []
    address = "127.0.0.1:0"
    try:
        for _ in range(count):
            command = [sys.executable, SCRIPT, "serve", address]
            running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            stdout = running[-1].stdout
            assert stdout is not None
            address = stdout.readline().strip()
        yield "", address, [process.pid for process in running]
    finally:
        for process in running:
            process.communicate("")


async def serve(address: str) -> None:
    """Be one of the servers of grpc.aio, which share their port unless told otherwise."""

    async def handle(user: User, _: object) -> Ack:
        return await create(user)

    unary = grpc.unary_unary_rpc_method_handler(handle, User.FromString, Ack.SerializeToString)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("ketch.bench.v1.Users", {"Create": unary}),))
    port = server.add_insecure_port(address)
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await until_the_parent_goes()


SERVERS = {"ketch": ketch, "grpc.aio": grpc_aio}


# clients


async def connect_ketch(runtime: str, _: str) -> Callable[[User], Awaitable[Ack]]:
    """Return what makes a call over all workers."""
    client = Client.from_env(registry=f"local://?runtime={runtime}", broker="memory")
    await client.__aenter__()
    return client.stub(UsersStub).create


async def connect_grpc_aio(_: str, address: str) -> Callable[[User], Awaitable[Ack]]:
    """Return what makes a call over one connection after the other."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(CONNECTIONS)]
    stubs = cycle([channel.unary_unary(METHOD, User.SerializeToString, Ack.FromString) for channel in channels])

    async def call(user: User) -> Ack:
        return await next(stubs)(user)

    return call


async def load(kind: str, runtime: str, address: str, name: str, seconds: float) -> None:
    """Call; print how often when asked to stop."""
    call = await (connect_ketch if kind == "ketch" else connect_grpc_aio)(runtime, address)
    user, made = User(id="0f0e", name=name), 0

    async def work(until: float) -> None:
        nonlocal made
        while time.perf_counter() < until:
            await call(user)
            made += 1

    await asyncio.gather(*(work(time.perf_counter() + 0.5) for _ in range(IN_FLIGHT)))  # to warm up
    print("warm", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    made, began = 0, time.perf_counter()
    await asyncio.gather(*(work(began + seconds) for _ in range(IN_FLIGHT)))
    print(json.dumps(made / (time.perf_counter() - began)), flush=True)


# the parent


def measure(kind: str, runtime: str, address: str, pids: list[int], name: str, seconds: float) -> tuple[float, float]:
    """Return calls per second, and calls per second of the servers' processor time."""
    command = [sys.executable, SCRIPT, "load", kind, runtime, address, name, str(seconds)]
    pipe = subprocess.PIPE
    loaders = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(LOADERS)]
    for loader in loaders:
        assert loader.stdout is not None
        loader.stdout.readline()
    before, began = sum(map(cpu, pids)), time.perf_counter()
    for loader in loaders:
        assert loader.stdin is not None
        loader.stdin.write("\n")
        loader.stdin.flush()
    rates = []
    for loader in loaders:
        assert loader.stdout is not None
        rates.append(json.loads(loader.stdout.readline()))
    used, elapsed = sum(map(cpu, pids)) - before, time.perf_counter() - began
    for loader in loaders:
        loader.communicate()
    return sum(rates), sum(rates) * elapsed / used


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--most", type=int, default=4)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    results: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for _ in range(arguments.rounds):
        for count in range(1, arguments.most + 1):
            for pair, (servers, client) in PAIRS.items():
                with SERVERS[servers](count) as (runtime, address, pids):
                    for handler, name in HANDLERS.items():
                        result = measure(client, runtime, address, pids, name, arguments.seconds)
                        results.setdefault((handler, pair, count), []).append(result)
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    print(f"{os.cpu_count()} cores\n{'':16}{'':15}{'workers':>8}{'calls/s':>10}{'per CPU second':>16}")
    for handler in HANDLERS:
        for pair in PAIRS:
            for count in range(1, arguments.most + 1):
                rate, efficiency = map(max, zip(*results[handler, pair, count], strict=True))
                print(f"{handler:16}{pair:15}{count:8}{rate:10,.0f}{efficiency:16,.0f}")
                panels.setdefault(f"workers: {handler}", {}).setdefault(pair, []).append((count, rate))
    if arguments.picture:
        title = f"N workers behind one port, on {os.cpu_count()} cores that the clients use as well"
        arguments.picture.write_text(draw(title, "calls/s", panels))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(sys.argv[2]))
    elif sys.argv[1:2] == ["load"]:
        import uvloop

        uvloop.run(load(*sys.argv[2:6], float(sys.argv[6])))
    else:
        main()
