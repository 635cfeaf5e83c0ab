"""What a registry with a server costs: how soon others know, 1,000 instances of one process, 200 watchers.

    python benchmarks/registries.py [etcd] [redis]

Requests are counted by the server itself. Times between processes are by CLOCK_MONOTONIC, which they share.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING
from urllib.request import urlopen

from beside import cpu, memory

from ketch.plugins import Plugins
from ketch.registry import Instance, Registry
from ketch.testing.servers import Server, etcd_server, redis_server
from ketch.url import Url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MANY, WATCHERS, PROCESSES = 1000, 200, 4
TTL = 15
SERVERS = {"etcd": etcd_server, "redis": redis_server}


def registry(url: str) -> Registry:
    parsed = Url.parse(url)
    return Plugins().load("Registry", parsed.name).from_url(parsed)


async def requests(server: Server) -> int:
    """Return how many requests, and messages of streams, the server has had; what its scripts do isn't counted."""
    if server.name == "etcd":
        command = server._command  # noqa: SLF001 - the port is its fixture's choice
        metrics = f"{command[command.index('--listen-metrics-urls') + 1]}/metrics"
        lines = (await asyncio.to_thread(lambda: urlopen(metrics).read().decode())).splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith("grpc_server_msg_received_total"))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    writer.write(b"INFO commandstats\r\n")
    text = (await reader.readexactly(int((await reader.readline())[1:]))).decode()
    writer.close()
    return sum(int(calls) for _, calls in re.findall(r"cmdstat_(eval|hscan|ping|subscribe):calls=(\d+)", text))


@asynccontextmanager
async def other(*arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run this script in another process until the block is left."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, *map(str, arguments)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def told(process: asyncio.subprocess.Process) -> dict:
    return json.loads(await process.stdout.readline())


def tell(**values: object) -> None:
    print(json.dumps(values), flush=True)


# --- the other processes


async def look(url: str, name: str) -> None:
    """Say which ids have come and gone, and when."""
    async with registry(url) as one, aclosing(one.watch(name)) as snapshots:
        before: set[str] = set()
        async for snapshot in snapshots:
            now, ids = time.monotonic(), {instance.id for instance in snapshot}
            tell(at=now, come=sorted(ids - before), gone=sorted(before - ids))
            before = ids


async def hold(url: str, name: str, count: str) -> None:
    """Register instances, say how long it took, and what it costs to keep them."""
    async with registry(url) as one:
        began = time.monotonic()
        crowd = [
            Instance(name, f"{name}-{n:04}", f"10.0.0.1:{n + 1}", contracts=(f"{name}.v1.X",))
            for n in range(int(count))
        ]
        await asyncio.gather(*(one.register(instance) for instance in crowd))
        tell(seconds=time.monotonic() - began)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            if line.strip() == "one more":
                await one.register(Instance(name, f"{name}-more-{time.monotonic()}", "10.0.0.1:1"))
                tell(at=time.monotonic())


async def crowd(url: str, name: str, count: str, expected: str) -> None:
    """Watch with many clients; say when the last of them has seen a number of instances, for each further one."""
    async with AsyncExitStack() as stack:
        began = time.monotonic()
        clients = [await stack.enter_async_context(registry(url)) for _ in range(int(count))]
        watches = [await stack.enter_async_context(aclosing(client.watch(name))) for client in clients]
        number = int(expected)

        async def see(watch: object, number: int) -> None:
            async for snapshot in watch:
                if len(snapshot) >= number:
                    return

        while True:
            await asyncio.gather(*(see(watch, number) for watch in watches))
            tell(at=time.monotonic(), seconds=time.monotonic() - began, memory=memory())
            number += 1


# --- the figures


async def convergence(url: str) -> None:
    async with other("look", url, "svc") as looking, registry(url) as here:
        await told(looking)
        delays = []
        for number in range(200):
            began = time.monotonic()
            await here.register(Instance("svc", f"id-{number}", "h:1"))
            delays.append(((await told(looking))["at"] - began) * 1000)
        delays.sort()
        print(f"  register -> seen by another process: median {delays[100]:.1f} ms, 99 % in {delays[197]:.1f} ms")
    short = f"{url}?ttl=3"
    async with other("look", short, "doomed") as looking, AsyncExitStack() as stack:
        await told(looking)
        doomed = [await stack.enter_async_context(other("hold", short, "doomed", 1)) for _ in range(1)]
        await told(looking)
        delays = []
        for _ in range(5):
            await asyncio.sleep(1.3)
            began = time.monotonic()
            doomed[-1].kill()
            delays.append((await told(looking))["at"] - began)
            doomed.append(await stack.enter_async_context(other("hold", short, "doomed", 1)))
            await told(looking)
        print(f"  killed -> gone, ttl=3: {min(delays):.2f} to {max(delays):.2f} s")


async def rate(server: Server, seconds: float, *processes: int) -> tuple[float, list[float]]:
    before, spent = await requests(server), [cpu(process) for process in processes]
    await asyncio.sleep(seconds)
    used = [(cpu(process) - one) / seconds * 100 for process, one in zip(processes, spent, strict=True)]
    return (await requests(server) - before - 1) / seconds, used


async def scale(server: Server, url: str) -> None:
    async with AsyncExitStack() as stack:
        holder = await stack.enter_async_context(other("hold", url, "many", MANY))
        print(f"  {MANY} instances registered by one process at once: {(await told(holder))['seconds']:.2f} s")
        pid = server._process.pid  # noqa: SLF001 - whose processor time is wanted
        figure, used = await rate(server, TTL, holder.pid, pid)
        print(f"  kept: {figure:.1f} requests/s; registrant {used[0]:.1f} %, server {used[1]:.1f} % of a core")
        share = WATCHERS // PROCESSES
        watching = [await stack.enter_async_context(other("crowd", url, "many", share, MANY)) for _ in range(PROCESSES)]
        answers = [await told(process) for process in watching]
        print(
            f"  {WATCHERS} clients in {PROCESSES} processes each know all: {max(a['seconds'] for a in answers):.2f} s"
        )
        print(f"  memory per client: {max(a['memory'] for a in answers) / share / 1024:.0f} KiB")
        delays = []
        for _ in range(5):
            began = time.monotonic()
            holder.stdin.write(b"one more\n")
            delays.append(max([(await told(process))["at"] for process in watching]) - began)
            await told(holder)
            await asyncio.sleep(0.2)
        print(f"  one more -> known to all {WATCHERS}: {sorted(delays)[2] * 1000:.0f} ms")
        figure, used = await rate(server, TTL, watching[0].pid, pid)
        print(
            f"  steady: {figure:.0f} requests/s, {figure / WATCHERS:.2f} a client; "
            f"{share} clients {used[0]:.1f} %, server {used[1]:.1f} % of a core"
        )


async def main(names: list[str]) -> None:
    for name in names or list(SERVERS):
        async with SERVERS[name]() as server:
            print(f"{name}, ttl={TTL}")
            await convergence(server.url)
            await scale(server, server.url)


if __name__ == "__main__":
    roles = {"look": look, "hold": hold, "crowd": crowd}
    job = roles[sys.argv[1]](*sys.argv[2:]) if sys.argv[1:2] and sys.argv[1] in roles else main(sys.argv[1:])
    asyncio.run(job)
