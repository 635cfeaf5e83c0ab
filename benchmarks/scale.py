"""Scale: a thousand instances and a hundred services, simulated with figures that are measured here first.

    python benchmarks/scale.py [--pictures docs/pictures]

What is measured: the bytes of a record, what a client's processor does for one change of a service with so many
instances, the memory of what it knows and of a connection at either end, and how fast a real registry tells many
clients. What is simulated: registry traffic, connections, memory, and how soon all clients know of a deploy, for two
readings of the size: 1,000 instances in all, and 1,000 of each service, 100,000 in all. docs/scale.md has the model.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import subprocess
import sys
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).parent))
from picture import draw

from ketch.calling.choice import Choice
from ketch.calling.roster import Roster
from ketch.calling.subset import Subset
from ketch.policy import DEFAULT
from ketch.registries import record
from ketch.registries.feed import Feed
from ketch.registry import Instance
from ketch.selectors.least_busy import least_busy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from picture import Panels

    from ketch.registry import Registry

SERVICES: Final = 100
#: Services that an instance calls, and calls that it makes to all of them a second.
CALLS, RATE = 5, 100.0
#: Seconds: a registry's time to live, between two renewals, one way through the network.
TTL, RENEWAL, LATENCY = 15.0, 5.0, 0.001
#: Changes that a registry pushes in a second, all clients together; the reality check below measures one.
PUSHES: Final = 50_000.0
SUBSET: Final = 100


@dataclass(frozen=True)
class Size:
    """One reading: instances of each service."""

    name: str
    each: int

    @property
    def all(self) -> int:
        """Instances of all services; each is a client of some others, too."""
        return self.each * SERVICES

    @property
    def watchers(self) -> int:
        """Clients of one service."""
        return self.all * CALLS // SERVICES


SIZES = (Size("1,000 in all", 10), Size("1,000 of each", 1000))


def instance(number: int, service: str = "go.micro.srv.user") -> Instance:
    """Return a typical instance."""
    labels = {"transport": "grpc", "broker": "nats", "host": f"node-{number % 50}", "zone": "abc"[number % 3]}
    contracts = ("shippy.user.v1.UserService",)
    return Instance(
        service,
        f"{service}-{number:036d}",
        f"10.0.{number >> 8 & 255}.{number & 255}:50051",
        "1.2.0",
        contracts,
        labels,
    )


# --- what is measured


@dataclass
class Measured:
    """Figures of this machine."""

    record: int
    learn: dict[int, float]  # seconds of processor time for one change, by instances known
    known: float  # bytes of memory for each instance that a client knows
    client: float  # bytes of memory for a connection, at the client's end
    server: float  # … and at the server's


def measure() -> Measured:
    """Measure them."""
    client, server = connection_memory()
    return Measured(
        len(record.encode(instance(1))),
        {size: learning(size) for size in (10, 100, 1000)},
        knowing(10_000),
        client,
        server,
    )


def learning(size: int) -> float:
    """Return what a change costs a client that knows so many: decoding, the feed, its subset, its candidates."""
    crew = [instance(number) for number in range(size)]
    feed, roster = Feed(), Roster("svc", lambda *_: None, DEFAULT, Subset("client", SUBSET))  # type: ignore[arg-type, return-value]
    choice = Choice(DEFAULT, least_busy(), {})
    roster.join(choice)
    times = []
    for turn in range(60):
        began = time.process_time()
        crew[turn % size] = record.decode(record.encode(instance(size + turn)))
        feed.publish(crew)
        roster.learn(feed.select("go.micro.srv.user"))
        times.append(time.process_time() - began)
    return statistics.median(times)


def knowing(size: int) -> float:
    """Return the bytes that a client holds for each instance it knows."""
    data = [record.encode(instance(number)) for number in range(size)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    feed = Feed()
    feed.publish(record.decode(one) for one in data)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return held / size


_SERVER = """
import asyncio, sys
from ketch.transports.grpc import GrpcTransport
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
async def main():
    listener = await GrpcTransport().listen("127.0.0.1:0", {})
    print(listener.address, rss(), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    print(rss(), flush=True)
asyncio.run(main())
"""
_CLIENT = """
import asyncio, sys
from ketch.transports.grpc import GrpcTransport
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
async def main():
    transport = GrpcTransport()
    first = transport.connect(sys.argv[1])
    await first.ready()
    before = rss()
    channels = [transport.connect(sys.argv[1]) for _ in range(500)]
    for channel in channels:
        await channel.ready()
    print((rss() - before) / 500, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    for channel in [first, *channels]:
        await channel.close()
asyncio.run(main())
"""


def connection_memory() -> tuple[float, float]:
    """Return the bytes that an idle connection takes at the client's and at the server's end."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", _SERVER], **pipes) as server:  # type: ignore[call-overload]
        address, before = server.stdout.readline().split()
        with subprocess.Popen([sys.executable, "-c", _CLIENT, address], **pipes) as client:  # type: ignore[call-overload]
            taken = float(client.stdout.readline())
            server.stdin.write("\n")
            server.stdin.flush()
            after = int(server.stdout.readline())
            client.stdin.write("\n")
            client.stdin.flush()
    return taken, (after - int(before)) / 500


# --- what is simulated


@dataclass(frozen=True)
class Design:
    """How a registry tells its clients.

    Attributes:
        whole: it sends all of a service at each change, not just what has changed.
        everything: clients hear of every service, not just of those that they call.
        poll: seconds between two looks, 0 where it pushes.
        members: servers that share its clients.
    """

    name: str
    whole: bool = False
    everything: bool = False
    poll: float = 0.0
    members: int = 1


DESIGNS: Final = (
    Design("push, changes, by name"),
    Design("the same, five members", members=5),
    Design("push, all of a service", whole=True),
    Design("push, changes, of all", everything=True),
    Design("DNS, 5 s", whole=True, poll=5.0),
)


def steady(size: Size, design: Design, facts: Measured) -> tuple[float, float]:
    """Return messages and bytes a second while nothing changes."""
    renewals = size.all / RENEWAL
    looks = size.all * CALLS / design.poll if design.poll else 0.0
    answer = facts.record * size.each if design.whole and design.poll else 0
    return renewals + 2 * looks, renewals * 100 + looks * (100 + answer)


def change_load(size: Size, design: Design, facts: Measured) -> tuple[float, float]:
    """Return messages and bytes that one change of one service sets off."""
    if design.poll:
        return 0.0, 0.0
    told = size.all if design.everything else size.watchers
    return told, told * facts.record * (size.each if design.whole else 1)


@dataclass
class Deploy:
    """What a rolling deploy of one service came to.

    Attributes:
        seconds: until clients know.
        failed: calls that meet a closed door first, as a share of those to the service, if an instance goes on serving
            for ten seconds after it has left the registry.
        failed_undrained: … if it doesn't.
    """

    seconds: list[float]
    failed: float
    failed_undrained: float


def deploy(size: Size, design: Design, facts: Measured, *, batch: float = 0.1, drain: float = 10.0) -> Deploy:
    """Simulate a rolling deploy of one service, a tenth at a time: old ones leave, new ones come.

    The registry is one queue, first in, first out; a client is another one. What one change costs a client depends on
    how many instances it knows.
    """
    chance = random.Random(7)
    bunch = max(1, int(size.each * batch))
    learn = _learn_cost(size.each, facts)
    told = size.all if design.everything else size.watchers
    weight = size.each if design.whole else 1  # records in a message; ten cost as much as one message more
    sample = [chance.random() for _ in range(300)]  # where in the fan-out a client comes
    calls = RATE / CALLS / min(size.each, SUBSET)  # of a client to an instance, a second
    seconds: list[float] = []
    failed = undrained = 0.0
    push = told / design.members * (1 + weight / 10) / PUSHES
    for _ in range(size.each // bunch):
        changes = sorted(chance.uniform(0, 2.0) for _ in range(2 * bunch))
        free, starts = 0.0, []
        for at in changes:
            starts.append(max(at, free))
            free = starts[-1] + push
        for place in sample:
            done, phase = 0.0, chance.uniform(0, design.poll) if design.poll else 0.0
            for at, start in zip(changes, starts, strict=True):
                if design.poll:
                    heard = at + (phase - at) % design.poll + LATENCY
                    done = max(heard, done) + (0 if heard <= done else learn * 2)
                else:
                    heard = start + place * push + LATENCY
                    done = max(heard, done) + learn
                # One call finds the door closed; after that the instance is left alone.
                undrained += min(1.0, calls * (done - at))
                failed += min(1.0, calls * max(0.0, done - at - drain))
            seconds.append(done - changes[-1])
    batches = size.each // bunch
    removals = len(sample) * batches * 2 * bunch / (min(size.each, SUBSET))
    total = RATE / CALLS * 30.0 * batches  # a batch every 30 s
    return Deploy(seconds, failed / removals / total, undrained / removals / total)


def _learn_cost(each: int, facts: Measured) -> float:
    known = min(facts.learn, key=lambda size: abs(size - each))
    return facts.learn[known]


def restart(size: Size, *, spread: bool) -> list[int]:
    """Return the reads that a registry gets in each tenth of a second after it came back: every client asks anew."""
    chance = random.Random(7)
    away = 5.0
    reads = [0] * 200
    for _ in range(min(size.all, 20_000)):
        pause, at = 0.1, chance.uniform(0, 0.05)
        while at < away:
            at += chance.uniform(pause / 2, pause) if spread else pause
            pause = min(2 * pause, 10.0)
        reads[min(199, int((at - away) * 10))] += CALLS
    scale = size.all / min(size.all, 20_000)
    return [int(count * scale) for count in reads]


def spread_of(size: int, clients: int, instances: int) -> tuple[float, float, int]:
    """Return the mean and the most clients of an instance, and the fewest, with subsets of this size."""
    crew = [instance(number) for number in range(instances)]
    load = dict.fromkeys((one.id for one in crew), 0)
    for client in range(clients):
        for one in Subset(f"client-{client}", size)(crew):
            load[one.id] += 1
    return statistics.mean(load.values()), max(load.values()), min(load.values())


# --- a look at reality


@dataclass(frozen=True)
class Reality:
    """Forty clients of a real Redis, in one process, and what the model says of them.

    Attributes:
        last: seconds from an instance's registration until the last client knew; the median of several.
        last_simulated: the same by the model.
        cost: seconds of processor time for each change that a client heard, the plugin's part included.
        cost_simulated: what the model takes for it, which has no plugin.
    """

    last: float
    last_simulated: float
    cost: float
    cost_simulated: float


async def reality(clients: int = 40, changes: int = 30) -> Reality | None:
    """Measure a real registry; None where there is no Redis."""
    from contextlib import AsyncExitStack, aclosing

    from ketch.plugins import Plugins
    from ketch.testing.servers import redis_server
    from ketch.url import Url

    seen = [0] * clients
    heard = asyncio.Event()

    async def follow(registry: Registry, place: int) -> None:
        async with aclosing(registry.watch("go.micro.srv.user")) as snapshots:
            async for snapshot in snapshots:
                seen[place] = len(snapshot)
                heard.set()

    try:
        async with redis_server() as server, AsyncExitStack() as stack:
            kind, url = Plugins().load("Registry", "redis"), Url.parse(server.url)
            opened = [await stack.enter_async_context(kind.from_url(url)) for _ in range(clients + 1)]
            watching = [asyncio.create_task(follow(one, place)) for place, one in enumerate(opened[1:])]
            await asyncio.sleep(0.5)
            times, busy = [], time.process_time()
            for number in range(changes):
                began = time.perf_counter()
                await opened[0].register(instance(number))
                while min(seen) <= number:
                    heard.clear()
                    await heard.wait()
                times.append(time.perf_counter() - began)
            busy = time.process_time() - busy
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
    except RuntimeError as error:
        print(f"no look at reality: {error}")
        return None
    learn = learning(changes // 2)
    return Reality(statistics.median(times), LATENCY + clients * (learn + 1 / PUSHES), busy / clients / changes, learn)


# --- what is printed


def bytes_(number: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as Markdown."""
    print("| " + " | ".join(head) + " |")
    print("| " + " | ".join("---" for _ in head) + " |")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def traffic(facts: Measured) -> None:
    """Print what registries carry."""
    print("### Registry traffic\n")
    rows = []
    for size in SIZES:
        for design in DESIGNS:
            messages, volume = steady(size, design, facts)
            told, bulk = change_load(size, design, facts)
            changes = 2 * size.each
            rows.append(
                (
                    size.name,
                    design.name,
                    f"{messages:,.0f}/s, {bytes_(volume)}/s",
                    f"{told:,.0f}, {bytes_(bulk)}" if told else "-",
                    f"{told * changes:,.0f}, {bytes_(bulk * changes)}" if told else "-",
                )
            )
    table(("instances", "registry", "steady", "one change", "deploy of one service"), rows)


def deploys(facts: Measured) -> Panels:
    """Print how soon clients know of a deploy; return the curves."""
    print("### After a tenth of a service was replaced: until clients know\n", flush=True)
    rows, curves = [], {}
    for size in SIZES:
        for design in DESIGNS:
            came = deploy(size, design, facts)
            times = [f"{quantile(came.seconds, share):.3g} s" for share in (0.5, 0.99, 1.0)]
            rows.append((size.name, design.name, *times, f"{came.failed_undrained:.2%}", f"{came.failed:.2%}"))
            if "of all" not in design.name and "all of" not in design.name:
                curves.setdefault(f"slowest of … clients; {size.name}", {})[design.name] = [
                    (count, max(1.0, 1000 * quantile(came.seconds, 1 - 1 / count))) for count in (2, 10, 100, 1000)
                ]
    table(("instances", "registry", "p50", "p99", "last", "calls that met a closed door", "drained for 10 s"), rows)
    return curves


def processes(facts: Measured) -> None:
    """Print a process's connections and memory."""
    print("### Connections and memory of a process\n", flush=True)
    rows = []
    for size in SIZES:
        for subset in (0, SUBSET, 20):
            used = min(size.each, subset) if subset else size.each
            out, incoming = CALLS * used, size.watchers * used / size.each
            rest = CALLS * size.each * facts.known + out * facts.client + incoming * facts.server
            memory = f"{34 + rest / 2**20:,.0f} MiB"
            rows.append((size.name, str(subset or "none"), f"{out:,}", f"{incoming:,.0f}", memory))
    table(("instances", "subset", "connections out", "in (mean)", "memory (34 MiB without any)"), rows)


def evenness() -> None:
    """Print how even subsets are."""
    print("### How even subsets are: clients of an instance, of 1,000 clients\n", flush=True)
    rows = []
    for subset in (5, 10, 20, 50, 100):
        mean, most, fewest = spread_of(subset, 1000, 200)
        rows.append((str(subset), f"{mean:.0f}", str(most), str(fewest), f"{most / mean:.2f}"))
    table(("subset of 200", "mean", "most", "fewest", "most / mean"), rows)


def bounds() -> Panels:
    """Return the connections of a client, by how many instances a service has."""
    sizes = (10, 100, 1000, 10_000)
    subsets = {"no subset": 10_000, "subset of 100": 100, "subset of 20": 20}
    curves = {name: [(size, CALLS * min(size, most)) for size in sizes] for name, most in subsets.items()}
    return {"instances of a service": curves}


def herd() -> None:
    """Print what a registry gets when it comes back."""
    print("### A registry that was away for 5 s: reads in the worst tenth of a second\n", flush=True)
    rows = [
        (size.name, f"{max(restart(size, spread=False)):,}", f"{max(restart(size, spread=True)):,}") for size in SIZES
    ]
    table(("instances", "all wait equally long", "spread, as ketch does"), rows)


def main() -> None:
    """Measure, simulate, print; write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, help="write the pictures to this folder")
    arguments = parser.parse_args()
    print("measuring …", flush=True)
    facts = measure()
    costs = ", ".join(f"{1e6 * seconds:.0f} us of {size:,} known" for size, seconds in facts.learn.items())
    print(
        f"a record has {facts.record} bytes; a change costs a client {costs}; an instance known takes "
        f"{facts.known:.0f} bytes, an idle connection {facts.client / 1024:.1f} KiB at the client and "
        f"{facts.server / 1024:.1f} at the server\n"
    )
    traffic(facts)
    curves = deploys(facts)
    processes(facts)
    evenness()
    herd()
    real = asyncio.run(reality())
    if real is not None:
        print(
            f"Reality: 40 clients of a Redis, in one process here: the last of them knows of a new instance after "
            f"{1000 * real.last:.1f} ms (simulated, with one processor for all: {1000 * real.last_simulated:.1f}); "
            f"a change heard takes {1e6 * real.cost:.0f} us of processor time (the model's part: "
            f"{1e6 * real.cost_simulated:.0f})."
        )
    if arguments.pictures:
        for name, title, unit, panels in (
            ("convergence", "Until clients know that a tenth of a service was replaced", "milliseconds", curves),
            ("connections", "Connections of a client of five services", "connections", bounds()),
        ):
            (arguments.pictures / f"scale-{name}.svg").write_text(draw(title, unit, panels, ends=True))


if __name__ == "__main__":
    main()
