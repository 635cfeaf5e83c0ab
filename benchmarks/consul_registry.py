"""Measure the Consul registry: how soon others see a change, and what many instances and watchers cost.

    python benchmarks/consul_registry.py [/path/of/the/real/consul]

Without a path it runs against our own small agent. It takes about two minutes.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import statistics
import sys
import time
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

from ketch.registries.consul import ConsulRegistry
from ketch.registries.consul.agent import Agent
from ketch.registry import Instance
from ketch.testing.servers.consul import consul_server
from ketch.url import Url

TTL = 15
INSTANCES, SERVICES, WATCHERS = 1000, 100, 200
STEADY = 30.0

_CHILD = """
import asyncio, sys, time
from ketch.registries.consul import ConsulRegistry
from ketch.registry import Instance
from ketch.url import Url

async def main(url, rounds):
    async with ConsulRegistry.from_url(Url.parse(url)) as registry:
        await registry.register(Instance("other", "first", "127.0.0.1:1"))
        for number in range(int(rounds)):
            await asyncio.sleep(0.6)
            await registry.register(Instance("seen", f"id-{number}", "127.0.0.1:1", metadata={"at": str(time.time())}))
        print("done", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


def requests() -> dict[str, int]:
    """Count this process's requests from now on."""
    counts = {"GET": 0, "PUT": 0}
    ask = Agent._request  # noqa: SLF001 - counting from outside leaves the measured code as it is

    async def counted(self: Agent, method: str, *more: Any) -> Any:
        counts[method] += 1
        return await ask(self, method, *more)

    Agent._request = counted  # noqa: SLF001
    return counts


async def converge(url: str) -> None:
    """Another process registers, and is killed."""
    delays = []
    async with ConsulRegistry.from_url(Url.parse(url)) as registry, aclosing(registry.watch("seen")) as snapshots:
        await anext(snapshots)
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", _CHILD, url, "20")
        known = set()
        while len(known) < 20:
            for one in await anext(snapshots):
                if one.id not in known:
                    known.add(one.id)
                    delays.append(time.time() - float(one.metadata["at"]))
        first, *others = (1000 * delay for delay in delays)
        print(f"register -> seen, a new service: {first:.0f} ms")
        print(f"register -> seen: median {statistics.median(others):.0f}, worst {max(others):.0f} ms")
        child.send_signal(signal.SIGKILL)
        await child.wait()
        killed = time.monotonic()
        while await anext(snapshots):
            pass
        print(f"kill -9 -> gone (ttl {TTL} s): {time.monotonic() - killed:.1f} s")


async def cost(url: str) -> None:
    """Many instances in one process, many watches in the same."""
    counts = requests()
    crowd = [
        Instance(f"service-{n % SERVICES}", f"id-{n}", f"10.0.0.1:{n + 1}", contracts=(f"c.v1.C{n % SERVICES}",))
        for n in range(INSTANCES)
    ]
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(ConsulRegistry.from_url(Url.parse(url)))
        reader = await stack.enter_async_context(ConsulRegistry.from_url(Url.parse(f"{url}&connections=150")))
        names = [f"service-{n % SERVICES}" if n < WATCHERS // 2 else f"c.v1.C{n % SERVICES}" for n in range(WATCHERS)]
        watches = [await stack.enter_async_context(aclosing(reader.watch(name))) for name in names]
        begun = time.monotonic()
        for snapshots in watches:
            await anext(snapshots)
        print(f"{WATCHERS} watches of {SERVICES} services begun: {time.monotonic() - begun:.1f} s")
        begun = time.monotonic()
        await asyncio.gather(*(writer.register(one) for one in crowd))
        registered = time.monotonic()
        for snapshots in watches:
            while len(await anext(snapshots)) < INSTANCES // SERVICES:
                pass
        seen = time.monotonic() - registered
        print(f"{INSTANCES} instances registered: {registered - begun:.1f} s; seen by all {seen:.1f} s later; {counts}")
        await steady(counts)
        print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


async def steady(counts: dict[str, int]) -> None:
    """Nothing changes."""
    before, cpu, begun = dict(counts), time.process_time(), time.monotonic()
    await asyncio.sleep(STEADY)
    took = time.monotonic() - begun
    rates = {method: round((counts[method] - before[method]) / took, 1) for method in counts}
    print(f"steady state: requests/s {rates}, {100 * (time.process_time() - cpu) / took:.1f}% of a core")


async def main(program: str) -> None:
    """Measure both."""
    async with consul_server(program=program) as server:
        url = f"{server.url}?ttl={TTL}"
        await converge(url)
        await cost(url)
    print(f"on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    asyncio.run(main(str(Path(sys.argv[1]).resolve()) if len(sys.argv) > 1 else ""))
