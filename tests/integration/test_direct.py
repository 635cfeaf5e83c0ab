"""The default broker between real processes that are killed, frozen, restarted, lied to."""

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
import textwrap
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass
from uuid import uuid4

import pytest

from ketch import Client, Topic
from ketch.codec import PROTOBUF
from ketch.errors import InvalidArgument
from ketch.registry import Instance

SUBSCRIBER = """
    import os, sys
    from dataclasses import dataclass
    from ketch import Service, Topic

    @dataclass
    class Job:
        number: int

    service = Service(sys.argv.pop(1))

    @service.subscribe(Topic("jobs", Job))
    async def work(job: Job) -> None:
        print("did", job.number, flush=True)

    service.run()
"""

PUBLISHER = """
    import asyncio
    from dataclasses import dataclass
    from ketch import Client, Topic

    @dataclass
    class Job:
        number: int

    async def main():
        async with Client.from_env() as client:
            publisher = await client.publisher(Topic("jobs", Job))
            for number in range(5000):
                await publisher.publish(Job(number))

    asyncio.run(main())
"""


@dataclass
class Job:
    number: int


@dataclass
class Letter:
    text: str


jobs = Topic("jobs", Job)


class Subscriber:
    """A process, and the numbers of the jobs that it did."""

    def __init__(self, process):
        self.did = []
        self.up = False
        self._process = process
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    async def _read(self):
        async for line in self._process.stdout:
            async with self._news:
                self.up = self.up or b" is up" in line
                if line.startswith(b"did "):
                    self.did.append(int(line[4:]))
                self._news.notify_all()

    async def until(self, fulfilled, patience=20):
        async with asyncio.timeout(patience), self._news:
            await self._news.wait_for(fulfilled)

    async def has_done(self, number):
        await self.until(lambda: number in self.did)

    def signal(self, number):
        self._process.send_signal(number)

    async def kill(self):
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading


class World:
    """One registry, and the processes that use it."""

    def __init__(self, path):
        self.registry = path / "ketch" / "registry"
        self._environ = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(path)}
        self._path = path
        self._running = []

    async def run(self, program, *args):
        file = self._path / f"{uuid4().hex}.py"
        file.write_text(textwrap.dedent(program))
        return await asyncio.create_subprocess_exec(
            sys.executable,
            str(file),
            *args,
            env=self._environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def subscribers(self, *names):
        """Start one for each name; those of one name are instances of one service, and share."""
        started = [Subscriber(await self.run(SUBSCRIBER, name)) for name in names]
        self._running += started
        for subscriber in started:
            await subscriber.until(lambda subscriber=subscriber: subscriber.up)
        return started

    async def end(self):
        for subscriber in self._running:
            await subscriber.kill()


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    yield world
    await world.end()


@pytest.fixture
async def client(world):
    async with Client.from_env(registry=f"local://{world.registry}") as client:
        await client.connect_broker()
        yield client


async def publish(client, numbers):
    publisher = await client.publisher(jobs)
    for number in numbers:
        await publisher.publish(Job(number))


async def publish_until(client, fulfilled, start=1000):
    """Publish one number after the other until what they cause has come; return the next one."""
    for number in range(start, start + 500):
        if fulfilled():
            return number
        await publish(client, [number])
        await asyncio.sleep(0.02)
    return pytest.fail("what was published caused nothing within ten seconds")


async def registered(client, count):
    """Return the subscribers' addresses as soon as the registry has so many of them."""
    async with asyncio.timeout(10), aclosing(client.options.registry.watch("topic:jobs")) as snapshots:
        async for snapshot in snapshots:
            if len(snapshot) == count:
                return [instance.address for instance in snapshot]
    return pytest.fail("the registry ended the watch")


async def test_a_killed_subscriber_vanishes_and_the_others_miss_nothing(world, client):
    victim, survivor = await world.subscribers("victim", "survivor")
    await publish(client, range(10))
    await victim.has_done(9)
    await victim.kill()
    await publish(client, range(10, 100))
    await registered(client, 1)
    await publish(client, range(100, 110))
    await survivor.has_done(109)
    assert survivor.did == list(range(110))


async def test_a_subscriber_that_was_restarted_is_found_again(world, client):
    (first,) = await world.subscribers("worker")
    await publish(client, [1])
    await first.has_done(1)
    await first.kill()
    (second,) = await world.subscribers("worker")
    await publish_until(client, lambda: second.did)


async def test_what_a_short_lived_program_publishes_arrives_though_it_ends_at_once(world):
    (subscriber,) = await world.subscribers("worker")
    program = await world.run(PUBLISHER)
    output, _ = await program.communicate()
    assert (program.returncode, output) == (0, b"")
    await subscriber.has_done(4999)
    assert subscriber.did == list(range(5000))


async def test_a_frozen_subscriber_costs_its_publisher_and_the_others_nothing_and_is_served_when_it_thaws(
    world, client, caplog
):
    frozen, other = await world.subscribers("frozen", "other")
    await publish(client, [0])
    await frozen.has_done(0)
    frozen.signal(signal.SIGSTOP)
    letters = await client.publisher(Topic("jobs", Letter))
    with caplog.at_level(logging.WARNING, "ketch.broker"):
        try:
            # As much as can wait for one process, and more.
            for _ in range(60):
                await letters.publish(Letter("x" * 1024 * 1024))
            await publish(client, range(1, 1001))
            await other.has_done(1000)
        finally:
            frozen.signal(signal.SIGCONT)
    assert other.did == list(range(1001))
    said = [record.message for record in caplog.records if "doesn't keep up" in record.message]
    assert len(said) == 1, "the publisher waited once, and then no more"
    await publish_until(client, lambda: any(number > 1000 for number in frozen.did), start=1001)


async def test_two_instances_share_exactly_and_when_one_is_killed_the_other_gets_all(world, client):
    one, other = await world.subscribers("worker", "worker")
    await publish(client, range(100))
    await one.until(lambda: len(one.did) == 50)
    await other.until(lambda: len(other.did) == 50)
    assert sorted(one.did + other.did) == list(range(100))
    await one.kill()
    # Only when the turn is never the dead one's does the other get two in a row.
    start = await publish_until(client, lambda: any({n, n + 1} <= set(other.did) for n in other.did if n >= 1000))
    await publish(client, range(start + 1000, start + 1100))
    await other.has_done(start + 1099)
    assert [number for number in other.did if number >= start + 1000] == list(range(start + 1000, start + 1100))


async def test_twelve_services_get_each_event_once(world, client):
    subscribers = await world.subscribers(*(f"service-{number}" for number in range(12)))
    await publish(client, range(20))
    for subscriber in subscribers:
        await subscriber.has_done(19)
        assert Counter(subscriber.did) == Counter(range(20))


async def test_an_address_that_nobody_answers_at_holds_nobody_up(world, client, caplog):
    (subscriber,) = await world.subscribers("worker")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: refused
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        ghost = Instance("topic:jobs", str(uuid4()), address, metadata={"transport": "grpc", "service": "ghost"})
        await client.options.registry.register(ghost)
        await publish(client, range(1000))
        await subscriber.has_done(999)
        assert subscriber.did == list(range(1000))
        await client.options.registry.deregister(ghost)
    assert sum(f"{address} can't be reached" in record.message for record in caplog.records) == 1


async def test_who_sends_garbage_is_told_so_and_the_subscriber_goes_on(world, client):
    (subscriber,) = await world.subscribers("worker")
    (address,) = await registered(client, 1)
    channel = client.options.transport.connect(address)
    try:
        for _ in range(3):
            stream = await channel.stream("/ketch.direct.v1.Events/Deliver", content_type=PROTOBUF)
            await stream.send(b"\xff\xff\xff")
            with pytest.raises(InvalidArgument, match="no batch of events"):
                await stream.receive()
    finally:
        await channel.close()
    await publish(client, [7])
    await subscriber.has_done(7)


async def test_everything_goes_on_when_the_registry_is_removed(world, client):
    (subscriber,) = await world.subscribers("worker")
    await publish(client, [1])
    await subscriber.has_done(1)
    shutil.rmtree(world.registry)
    await publish_until(client, lambda: len(subscriber.did) > 1)
    (late,) = await world.subscribers("late")
    await publish_until(client, lambda: late.did, start=2000)
