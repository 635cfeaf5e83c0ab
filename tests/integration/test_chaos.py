"""Chaos: instances are killed, frozen and restarted one at a time under load, and idempotent calls don't fail.

`make chaos` runs it for 60 seconds; in `make test` it takes less. What it proves isn't that machines are fast: each
call has a deadline of seconds, and one that was lost with its instance would run into it.
"""

import asyncio
import os
import signal
import sys
import textwrap
import time

import pytest

from ketch import Client
from ketch.errors import StatusError
from ketch.rpc import Method, Stub

SERVICE = """
import asyncio
from ketch import Service
from ketch.rpc import Method, Servicer

ECHO = Method("chaos.Echo", "Echo", str, str, idempotent=True)

class Echo(Servicer):
    contract = "chaos.Echo"
    methods = {"echo": ECHO}

    async def echo(self, text: str) -> str:
        await asyncio.sleep(0.005)
        return text

service = Service("chaos")
service.serve(Echo())
service.run()
"""

ECHO = Method("chaos.Echo", "Echo", str, str, idempotent=True)
INSTANCES = 5
RATE = 200
DEADLINE = 2.0
SECONDS = float(os.environ.get("KETCH_CHAOS_SECONDS", "15"))


class EchoStub(Stub):
    contract = "chaos.Echo"

    def echo(self, text):
        return self._unary(ECHO, text, DEADLINE, None)


class Fleet:
    """The instances, each a process."""

    def __init__(self, folder):
        self.folder = folder
        self.registry = f"local://{folder}/registry"
        self.processes = {}
        (folder / "service.py").write_text(textwrap.dedent(SERVICE))

    async def start(self, number):
        self.processes[number] = await asyncio.create_subprocess_exec(
            sys.executable,
            str(self.folder / "service.py"),
            f"--registry={self.registry}",
            "--broker=memory",
            env={"PATH": os.environ["PATH"]},
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def end(self, number, how=signal.SIGKILL):
        process = self.processes.pop(number)
        process.send_signal(how)
        await process.wait()

    def tell(self, number, what):
        self.processes[number].send_signal(what)

    async def close(self):
        for number in list(self.processes):
            self.tell(number, signal.SIGCONT)
            await self.end(number)


class Load:
    """Calls at a steady rate, and what became of them."""

    def __init__(self, stub):
        self.stub = stub
        self.took = []
        self.failed = []
        self._calls = set()

    async def run(self, until):
        began, number = time.monotonic(), 0
        while (now := time.monotonic()) < until:
            while number < (now - began) * RATE:
                task = asyncio.create_task(self._call(f"call {number}"))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)
                number += 1
            await asyncio.sleep(1 / RATE)
        await asyncio.gather(*self._calls)

    async def _call(self, text):
        began = time.monotonic()
        try:
            assert await self.stub.echo(text) == text
        except StatusError as error:
            self.failed.append(f"{text} at {began:.3f}: {error!r}")
        self.took.append(time.monotonic() - began)


async def havoc(fleet, until):
    """Kill, freeze, and restart instances in turn, one at a time."""
    done, number = [], 0
    while time.monotonic() + 3 < until:
        what = ("kill", "freeze", "restart")[number % 3]
        victim = number % INSTANCES
        if what == "kill":
            await fleet.end(victim)
            await asyncio.sleep(1)
            await fleet.start(victim)
        elif what == "freeze":
            fleet.tell(victim, signal.SIGSTOP)
            await asyncio.sleep(2)
            fleet.tell(victim, signal.SIGCONT)
        else:
            await fleet.end(victim, signal.SIGTERM)
            await fleet.start(victim)
        done.append(f"{what} {victim}")
        await asyncio.sleep(1)
        number += 1
    return done


@pytest.mark.timeout(SECONDS + 60)
async def test_no_idempotent_call_fails_while_instances_are_killed_frozen_and_restarted(tmp_path):
    fleet = Fleet(tmp_path)
    try:
        for number in range(INSTANCES):
            await fleet.start(number)
        async with Client.from_env(environ={}, registry=fleet.registry) as client:
            await client.ready("chaos", timeout=30)
            async with asyncio.timeout(30):
                while len(client.candidates("chaos")) < INSTANCES:  # noqa: ASYNC110 - only the test waits for all
                    await asyncio.sleep(0.05)
            load = Load(client.stub(EchoStub, "chaos"))
            until = time.monotonic() + SECONDS
            _, done = await asyncio.gather(load.run(until), havoc(fleet, until))
        took = sorted(load.took)
        half, most = took[len(took) // 2], took[int(len(took) * 0.99)]
        print(
            f"\n{len(took)} calls at {RATE}/s to {INSTANCES} instances while: {', '.join(done)}\n"
            f"failed: {len(load.failed)}; p50 {half * 1000:.1f} ms, p99 {most * 1000:.1f} ms, "
            f"longest {took[-1] * 1000:.1f} ms; deadline {DEADLINE:g} s"
        )
        assert not load.failed, load.failed[:10]
        assert len(took) > SECONDS * RATE * 0.9
        assert most < DEADLINE
        assert {"kill", "freeze", "restart"} <= {what.split()[0] for what in done}
    finally:
        await fleet.close()
