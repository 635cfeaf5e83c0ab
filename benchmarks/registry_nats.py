"""Registries on NATS: how soon a change is seen, what many instances and watchers cost, what goes on when nothing does.

    python benchmarks/registry_nats.py [ttl in seconds, 3]

One server, from the wheel; processes on this machine.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from contextlib import AsyncExitStack, aclosing

import nats

from ketch.registries.nats import NatsRegistry, NatsServicesRegistry
from ketch.registry import Instance
from ketch.testing.servers.nats import nats_server
from ketch.url import Url

REGISTRANT = """
import asyncio, sys, time
from ketch.plugins import Plugins
from ketch.registry import Instance
from ketch.url import Url

async def main(url):
    async with Plugins().load("Registry", url.name).from_url(url) as registry:
        sys.stdin.readline()
        print(time.time(), flush=True)
        await registry.register(Instance("svc", "svc-1", "127.0.0.1:7001"))
        await asyncio.Event().wait()

asyncio.run(main(Url.parse(sys.argv[1])))
"""
TTL = int(sys.argv[1]) if len(sys.argv) > 1 else 3

#: Longest time to live for which it is waited until killed processes are gone, in seconds.
_PATIENCE = 5


def registry(url: str) -> NatsRegistry:
    kind = NatsServicesRegistry if url.startswith("nats-services") else NatsRegistry
    return kind.from_url(Url.parse(url))


async def convergence(url: str, rounds: int = 5) -> None:
    seen, gone = [], []
    async with registry(url) as here, aclosing(here.watch("svc")) as snapshots:
        await anext(snapshots)
        for _ in range(rounds):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", REGISTRANT, url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            await asyncio.sleep(1.0)
            process.stdin.write(b"\n")
            began = float(await process.stdout.readline())
            await anext(snapshots)
            seen.append((time.time() - began) * 1000)
            process.kill()
            began = time.time()
            await anext(snapshots)
            gone.append(time.time() - began)
            await process.wait()
    print(
        f"  registered to seen by another process: {statistics.median(seen):.1f} ms (worst {max(seen):.1f}); "
        f"killed to gone, ttl={TTL}: {statistics.median(gone):.2f} s (worst {max(gone):.2f})"
    )


async def crowd(url: str, instances: int = 1000, watchers: int = 200) -> None:
    members = [
        Instance(f"svc-{number % 100}", f"svc-{number}", f"127.0.0.1:{number + 1}", contracts=(f"pkg.S{number % 100}",))
        for number in range(instances)
    ]
    async with AsyncExitStack() as stack:
        here, there = [await stack.enter_async_context(registry(url)) for _ in range(2)]
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*map(here.register, members))
        print(
            f"  {instances} instances registered by one process in {time.perf_counter() - began:.2f} s "
            f"({time.process_time() - cpu:.2f} s of processor time)"
        )
        began, cpu = time.perf_counter(), time.process_time()
        reading = [there.watch(f"svc-{number % 100}") for number in range(watchers)]
        firsts = await asyncio.gather(*(stack.enter_async_context(aclosing(one)) for one in reading))

        async def full(snapshots: object) -> None:
            async for snapshot in snapshots:
                if len(snapshot) == instances // 100:
                    return

        await asyncio.gather(*map(full, firsts))
        print(
            f"  {watchers} watchers of 100 services have all in {time.perf_counter() - began:.2f} s "
            f"({time.process_time() - cpu:.2f} s of processor time)"
        )
        address = url.partition("://")[2].partition("?")[0]
        client = await nats.connect(f"nats://{address}")
        counter = {">": 0}

        async def count(_: object) -> None:
            counter[">"] += 1

        await client.subscribe(">", cb=count)
        await client.flush()
        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.sleep(max(2 * TTL, 9))
        spent = time.perf_counter() - began
        print(
            f"  steady state: {counter['>'] / spent:.0f} messages/s at the server, ttl={TTL}; "
            f"registering, watching and counting took {(time.process_time() - cpu) / spent:.1%} of a core"
        )
        await client.close()


async def main() -> None:
    async with nats_server(jetstream=True) as server:
        address = server.url.partition("://")[2]
        for name, url in {
            "nats": f"nats://{address}?ttl={TTL}&services=off",
            "nats-services": f"nats-services://{address}?ttl={TTL}",
            "nats as go-micro": f"nats://{address}?ttl={TTL}&format=go-micro&services=off",
        }.items():
            print(name)
            if TTL <= _PATIENCE:
                await convergence(url)
            await crowd(url)


if __name__ == "__main__":
    asyncio.run(main())
