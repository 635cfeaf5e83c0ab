"""What events cost as there are more of them: fan-out to 100 subscribers, memory over 5,000,000, latency at half load.

    python benchmarks/endurance.py [--only fanout,memory,latency] [--events 5000000]

Publisher and subscriber are processes of their own, on uvloop, over `direct`; for latency NATS too, beside raw nats-py.
Fan-out: 1 to 100 groups in one subscribing process; a delivery is one handler called. Memory: the resident set of both
processes while so many events go through. Latency: events are published evenly at half the rate that the contender
just reached flat out, and each says when it was sent; both processes read the same monotonic clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop
from events import FIELDS, TOPIC, USER, Counter, User, free_port

GROUPS = (1, 2, 5, 10, 20, 50, 100)
DELIVERIES = 200_000
_STEADY = 100_000.0  # events a second, which the subscriber can follow, so that none is dropped
KEPT = 500_000
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> float:
    """Return this process's resident set in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


def say(**facts: Any) -> None:
    """Report to the parent."""
    print(json.dumps(facts), flush=True)


async def subscribe(broker: str, groups: int, count: int) -> None:
    """Handle `count` events in each of so many groups; report rate, memory and latencies."""
    from ketch import Service, Topic

    counter = Counter(groups * count)
    latencies: list[int] = []
    memory: list[float] = []

    async def handle(user: User) -> None:
        counter.add(user)
        if user.id.startswith("@") and len(latencies) < KEPT:
            latencies.append(time.monotonic_ns() - int(user.id[1:]))
        if counter.seen % 500_000 == 0:
            memory.append(resident())

    service = Service("bench", broker=broker)
    for number in range(groups):
        service.subscribe(Topic(TOPIC, User), group=f"g{number}")(handle)
    async with service:
        say(ready=True)
        await asyncio.wait_for(counter.done.wait(), 600)
        say(end=time.monotonic(), latencies=cut(latencies), memory=memory)


async def subscribe_nats(url: str, count: int) -> None:
    """Do the same with nats-py alone."""
    import nats

    counter, latencies = Counter(count), []
    connection = await nats.connect(url)

    async def on_message(message: Any) -> None:
        user = User.FromString(message.data)
        counter.add(user)
        if user.id.startswith("@"):
            latencies.append(time.monotonic_ns() - int(user.id[1:]))

    await connection.subscribe(TOPIC, queue="g", cb=on_message, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await connection.flush()
    say(ready=True)
    await asyncio.wait_for(counter.done.wait(), 600)
    say(end=time.monotonic(), latencies=cut(latencies), memory=[])


def cut(latencies: list[int]) -> list[float]:
    """Return p50, p90, p99 and the longest, in milliseconds."""
    if not latencies:
        return []
    latencies.sort()
    return [latencies[min(len(latencies) - 1, int(len(latencies) * share))] / 1e6 for share in (0.5, 0.9, 0.99, 1)]


async def publish(broker: str, count: int, rate: float) -> None:
    """Publish `count` events, as fast as it goes or evenly at a rate."""
    if broker.startswith("raw:"):
        import nats

        connection = await nats.connect(broker.removeprefix("raw:"))
        headers = {"ce-id": "1", "ce-source": "bench", "ce-type": "User", "ce-specversion": "1.0"}

        async def send(user: User) -> None:
            await connection.publish(TOPIC, user.SerializeToString(), headers=headers)

        await pace(send, count, rate)
        await connection.flush(60)
        await connection.close()
        return
    from ketch import Client, Topic

    async with Client.from_env(name="bench", broker=broker) as client:
        publisher = await client.publisher(Topic(TOPIC, User))
        await pace(publisher.publish, count, rate)
        say(memory=[resident()])


async def pace(send: Any, count: int, rate: float) -> None:
    """Send; every 256 events the loop has a turn, and at a rate whatever is due each millisecond is sent."""
    say(begin=time.monotonic())
    if not rate:
        for number in range(count):
            await send(USER)
            if not number % 256:
                await asyncio.sleep(0)
        return
    began, sent = time.monotonic(), 0
    while sent < count:
        due = min(count, int((time.monotonic() - began) * rate))
        for _ in range(due - sent):
            await send(User(**{**FIELDS, "id": f"@{time.monotonic_ns()}"}))
        sent = due
        await asyncio.sleep(0.001)


def run(broker: str, groups: int, count: int, rate: float, environ: dict[str, str]) -> dict[str, Any]:
    """Run both processes; return what they reported."""
    subscriber = start("subscribe", broker, groups, count, rate, environ)
    publisher = None
    try:
        assert json.loads(subscriber.stdout.readline())["ready"]
        time.sleep(0.5)
        publisher = start("publish", broker, groups, count, rate, environ)
        begin = json.loads(publisher.stdout.readline())["begin"]
        report: dict[str, Any] = json.loads(subscriber.stdout.readline())
        said = publisher.communicate(timeout=120)[0].strip()
        report["publisher"] = json.loads(said)["memory"] if said else []
        report["rate"] = groups * count / (report["end"] - begin)
        return report
    finally:
        for process in (subscriber, publisher):
            if process is not None:
                process.kill()
                process.wait()


def start(role: str, broker: str, groups: int, count: int, rate: float, environ: dict[str, str]) -> Any:
    """Start one of the two processes."""
    command = [sys.executable, __file__, "--role", role, "--broker", broker, "--groups", str(groups)]
    command += ["--count", str(count), "--rate", str(rate)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environ})


def fanout(environ: dict[str, str]) -> None:
    """Print what a delivery costs, by the number of groups."""
    print(f"{'groups':>7}{'deliveries/s':>14}{'us each':>9}{'to one':>8}")
    first = 0.0
    for groups in GROUPS:
        rates = [run("direct", groups, DELIVERIES // groups, 0, environ)["rate"] for _ in range(3)]
        each = 1e6 / statistics.median(rates)
        first = first or each
        print(f"{groups:7}{1e6 / each:14,.0f}{each:9.2f}{each / first:8.2f}", flush=True)


def memory(environ: dict[str, str], events: int) -> None:
    """Print the resident set as events go through."""
    report = run("direct", 1, events, _STEADY, environ)
    print(f"{events:,} events, {report['rate']:,.0f} a second; subscriber's resident set, MiB, every 500,000:")
    print("  " + "  ".join(f"{size:.0f}" for size in report["memory"]))
    print(f"  publisher at the end: {report['publisher'][0]:.0f} MiB")


def latency(environ: dict[str, str], nats: str) -> None:
    """Print latencies at half load."""
    print(f"{'contender':14}{'full, events/s':>16}{'p50 ms':>9}{'p90':>8}{'p99':>8}{'longest':>9}")
    for name, broker in (("nats-py", f"raw:{nats}"), ("ketch nats", nats), ("ketch direct", "direct")):
        full = statistics.median(run(broker, 1, 150_000, 0, environ)["rate"] for _ in range(3))
        report = run(broker, 1, int(full * 2), full / 2, environ)
        figures = "".join(f"{value:{width}.2f}" for value, width in zip(report["latencies"], (9, 8, 8, 9), strict=True))
        print(f"{name:14}{full:16,.0f}{figures}", flush=True)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="fanout,memory,latency")
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--broker", help=argparse.SUPPRESS)
    parser.add_argument("--groups", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "subscribe" and options.broker.startswith("raw:"):
        uvloop.run(subscribe_nats(options.broker.removeprefix("raw:"), options.count))
    elif options.role == "subscribe":
        uvloop.run(subscribe(options.broker, options.groups, options.count))
    elif options.role:
        uvloop.run(publish(options.broker, options.count, options.rate))
    else:
        measure(options.only.split(","), options.events)


def measure(parts: list[str], events: int) -> None:
    """Run the parts."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(sys.executable).parent / "nats-server")
        server = subprocess.Popen([program, "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
        environ = {"XDG_RUNTIME_DIR": folder}
        try:
            time.sleep(0.5)
            if "fanout" in parts:
                fanout(environ)
            if "memory" in parts:
                memory(environ, events)
            if "latency" in parts:
                latency(environ, f"nats://127.0.0.1:{port}")
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
