"""Typed events, publish to handler: ketch against FastStream on NATS, raw nats-py, and a bare socket.

    python benchmarks/events.py [--rounds 3] [--seconds 3]

Publisher and subscriber are processes of their own, on uvloop, for every contender. All carry the same user with the
same six headers (those of a CloudEvent), and all call one `async def handle(user)` for each event, in order. FastStream
is used as its documentation shows it, with a pydantic model; a second row gives it protobuf bytes, decoded by hand. A
rate is events divided by the time from the first publish to the last handled. Rounds are interleaved, medians printed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

sys.path.insert(0, str(Path(__file__).parent / "proto"))
from bench_pb2 import User

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

FIELDS = {"id": "0f0e", "name": "Ewan Valentine", "email": "ewan.valentine89@gmail.com", "company": "BBC"}
USER = User(**FIELDS)
HEADERS = {
    "ce-specversion": "1.0",
    "ce-source": "bench",
    "ce-type": "ketch.bench.v1.User",
    "content-type": "application/protobuf",
    "ce-id": "0123456789abcdef00000000",
    "ce-time": "2026-11-23T23:57:23.000Z",
}
TOPIC = "bench.user"

#: Events of a round, by contender: about the same number of seconds for each.
RATES = {
    "bare socket": 400_000,
    "nats-py": 90_000,
    "FastStream nats": 10_000,
    "FastStream nats, bytes": 12_000,
    "ketch nats": 60_000,
    "ketch direct": 120_000,
}


class Counter:
    """Counts handled events and reports when the last one came."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.seen = 0
        self.done = asyncio.Event()

    def add(self, user: Any) -> None:
        """Count one; a field is looked at, as any handler would."""
        assert user.name
        self.seen += 1
        if self.seen == self.expected:
            self.done.set()


# Subscribers: subscribe, say "ready", return when everything was handled.


async def subscribe_ketch(counter: Counter, broker: str) -> None:
    from ketch import Service, Topic

    service = Service("bench.subscriber", broker=broker)

    @service.subscribe(Topic(TOPIC, User))
    async def handle(user: User) -> None:
        counter.add(user)

    async with service:
        await ready(counter)


async def subscribe_nats(counter: Counter, url: str) -> None:
    import nats

    connection = await nats.connect(url)

    async def handle(user: User) -> None:
        counter.add(user)

    async def on_message(message: Any) -> None:
        await handle(User.FromString(message.data))

    await connection.subscribe(TOPIC, queue="g", cb=on_message, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await connection.flush()
    await ready(counter)
    await connection.close()


async def subscribe_faststream(counter: Counter, url: str, *, raw: bool) -> None:
    from faststream.nats import NatsBroker
    from pydantic import BaseModel

    class Model(BaseModel):
        id: str
        name: str
        email: str
        company: str

    broker = NatsBroker(url, logger=None)
    if raw:

        @broker.subscriber(TOPIC, queue="g")
        async def handle_bytes(body: bytes) -> None:
            counter.add(User.FromString(body))

    else:

        @broker.subscriber(TOPIC, queue="g")
        async def handle(user: Model) -> None:
            counter.add(user)

    await broker.start()
    await ready(counter)
    await broker.stop()


async def subscribe_bare(counter: Counter, port: str) -> None:
    batches: asyncio.Queue[list[bytes]] = asyncio.Queue()

    class Protocol(asyncio.Protocol):
        rest = b""

        def data_received(self, data: bytes) -> None:
            data = self.rest + data
            at, end, batch = 0, len(data), []
            while end - at >= 4:
                (size,) = struct.unpack_from("<I", data, at)
                if end - at - 4 < size:
                    break
                batch.append(data[at + 4 : at + 4 + size])
                at += 4 + size
            self.rest = data[at:]
            if batch:
                batches.put_nowait(batch)

    async def handle(user: User) -> None:
        counter.add(user)

    async def consume() -> None:
        while True:
            for body in await batches.get():
                await handle(User.FromString(body))

    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", int(port))
    task = asyncio.create_task(consume())
    await ready(counter)
    task.cancel()
    server.close()


async def ready(counter: Counter) -> None:
    """Report readiness, wait for the last event, report when it came and how many did."""
    print("ready", flush=True)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(counter.done.wait(), 60)
    print(json.dumps({"end": time.monotonic(), "seen": counter.seen}), flush=True)


# Publishers: report when they began, publish `count` events, flush.


async def publish_ketch(count: int, broker: str) -> None:
    from ketch import Client, Topic

    async with Client.from_env(name="bench", broker=broker) as client:
        publisher = await client.publisher(Topic(TOPIC, User))
        await go(count, lambda: publisher.publish(USER))


async def publish_nats(count: int, url: str) -> None:
    import nats

    connection = await nats.connect(url)
    await go(count, lambda: connection.publish(TOPIC, USER.SerializeToString(), headers=HEADERS))
    await connection.flush(60)
    await connection.close()


async def publish_faststream(count: int, url: str, *, raw: bool) -> None:
    from faststream.nats import NatsBroker
    from pydantic import BaseModel

    class Model(BaseModel):
        id: str
        name: str
        email: str
        company: str

    headers = {name: value for name, value in HEADERS.items() if name != "content-type"}
    user = Model(**FIELDS)
    broker = NatsBroker(url, logger=None)
    await broker.connect()
    if raw:
        await go(count, lambda: broker.publish(USER.SerializeToString(), TOPIC, headers=headers))
    else:
        await go(count, lambda: broker.publish(user, TOPIC, headers=headers))
    await broker.stop()


async def publish_bare(count: int, port: str) -> None:
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", int(port))
    out: list[bytes] = []

    async def publish() -> None:
        body = USER.SerializeToString()
        out.append(struct.pack("<I", len(body)))
        out.append(body)
        if len(out) >= 1024:
            transport.write(b"".join(out))
            out.clear()
            while transport.get_write_buffer_size() > 1 << 20:
                await asyncio.sleep(0.0005)

    await go(count, publish)
    transport.write(b"".join(out))
    while transport.get_write_buffer_size():
        await asyncio.sleep(0.001)
    transport.close()


async def go(count: int, publish: Callable[[], Awaitable[Any]]) -> None:
    """Report the beginning and publish."""
    print(json.dumps({"begin": time.monotonic()}), flush=True)
    for n in range(count):
        await publish()
        if not n % 256:
            await asyncio.sleep(0)  # a publisher that does nothing else; its loop still has to write


SUBSCRIBERS: dict[str, Callable[[Counter, str], Awaitable[None]]] = {
    "bare socket": subscribe_bare,
    "nats-py": subscribe_nats,
    "FastStream nats": lambda counter, url: subscribe_faststream(counter, url, raw=False),
    "FastStream nats, bytes": lambda counter, url: subscribe_faststream(counter, url, raw=True),
    "ketch nats": subscribe_ketch,
    "ketch direct": subscribe_ketch,
}
PUBLISHERS: dict[str, Callable[[int, str], Awaitable[None]]] = {
    "bare socket": publish_bare,
    "nats-py": publish_nats,
    "FastStream nats": lambda count, url: publish_faststream(count, url, raw=False),
    "FastStream nats, bytes": lambda count, url: publish_faststream(count, url, raw=True),
    "ketch nats": publish_ketch,
    "ketch direct": publish_ketch,
}


# The rounds.


def measure(name: str, seconds: float, where: str, environ: dict[str, str]) -> float:
    """Run one contender once; return its events per second."""
    count = int(RATES[name] * seconds)
    subscriber = _role(name, "subscribe", count, where, environ)
    try:
        line = subscriber.stdout.readline()
        if line.strip() != "ready":
            raise RuntimeError(f"{name}: the subscriber said {line!r}")
        time.sleep(0.3)
        publisher = _role(name, "publish", count, where, environ)
        begin = json.loads(publisher.stdout.readline())["begin"]
        report = json.loads(subscriber.stdout.readline())
        publisher.wait(60)
    finally:
        subscriber.send_signal(signal.SIGTERM)
        subscriber.wait(20)
    if report["seen"] < count:
        print(f"{name}: only {report['seen']} of {count} events were handled", file=sys.stderr)
    return report["seen"] / (report["end"] - begin)


def _role(name: str, role: str, count: int, where: str, environ: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--role", role, "--name", name, "--count", str(count), "--where", where]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environ})


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def table(rates: dict[str, list[float]]) -> None:
    """Print medians and ratios."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"\n{'contender':26}{'events/s':>10}{'x FastStream':>14}{'x nats-py':>11}{'x bare':>8}")
    for name, rate in sorted(medians.items(), key=lambda item: item[1]):
        ratios = [rate / medians[peer] for peer in ("FastStream nats", "nats-py", "bare socket")]
        print(f"{name:26}{rate:10,.0f}{ratios[0]:14.1f}{ratios[1]:11.2f}{ratios[2]:8.2f}")


def run_rounds(rounds: int, seconds: float) -> None:
    """Measure everyone, round by round."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [str(Path(sys.executable).parent / "nats-server"), "-a", "127.0.0.1", "-p", str(port)],
            stderr=subprocess.DEVNULL,
        )
        try:
            time.sleep(0.5)
            nats = f"nats://127.0.0.1:{port}"
            where = dict.fromkeys(RATES, nats) | {"ketch direct": "direct"}
            rates: dict[str, list[float]] = {name: [] for name in RATES}
            for number in range(rounds):
                for name, values in rates.items():
                    place = str(free_port()) if name == "bare socket" else where[name]
                    values.append(measure(name, seconds, place, {"XDG_RUNTIME_DIR": folder}))
                    print(f"round {number + 1}: {name:26}{values[-1]:10,.0f} events/s", flush=True)
        finally:
            server.terminate()
            server.wait()
    table(rates)


async def play(role: str, name: str, count: int, where: str) -> None:
    """Be one of the two processes."""
    if role == "subscribe":
        await SUBSCRIBERS[name](Counter(count), where)
    else:
        await PUBLISHERS[name](count, where)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--where", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        uvloop.run(play(options.role, options.name, options.count, options.where))
    else:
        run_rounds(options.rounds, options.seconds)


if __name__ == "__main__":
    main()
