"""`ketch dead`, as its users run it: real processes, real brokers, a handler that fails until it is mended."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass

import pytest

from ketch import RetryPolicy, Service, Topic, testing
from ketch.testing.servers import nats_server, redis_server


@dataclass
class Order:
    id: int


placed = Topic("order.placed", Order)


@pytest.fixture(params=["jetstream", "redis-streams"])
async def broker(request):
    server = nats_server(jetstream=True) if request.param == "jetstream" else redis_server()
    async with server as running:
        yield running.url.replace("redis://", "redis-streams://")


async def ketch(*args, broker):
    """Run the command; return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ketch",
        *args,
        "--broker",
        broker,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"]},
    )
    async with asyncio.timeout(40):
        output, _ = await process.communicate()
    return process.returncode, output.decode()


async def until(true):
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - another process makes it so
            await asyncio.sleep(0.02)


async def letters(broker, *args):
    """Return the dead letters as `ketch dead list --json` tells of them."""
    code, output = await ketch("dead", "list", "--json", *args, broker=broker)
    assert code == 0, output
    return [json.loads(line) for line in output.splitlines()]


async def test_events_that_failed_are_listed_shown_replayed_and_dropped(broker):
    service, broken, handled = Service("shop"), True, []

    @service.subscribe(placed, retry=RetryPolicy(attempts=2, backoff=0.01))
    async def ship(order: Order) -> None:
        if broken and order.id < 3:
            raise LookupError(f"no carrier for {order.id}")
        handled.append(order.id)

    async with testing.run(service, broker=broker) as app:
        for number in range(5):
            await app.publish(placed, Order(number))
        await until(lambda: len(handled) == 2 and service._declared.consumers[0].failed == 6)
        await asyncio.sleep(0.2)

        found = sorted(await letters(broker), key=lambda letter: letter["reason"])
        assert [letter["reason"] for letter in found] == [f"no carrier for {n}" for n in range(3)]
        assert {(letter["topic"], letter["group"], letter["attempts"]) for letter in found} == {
            ("order.placed", "shop", 2)
        }
        first, second, third = (letter["id"] for letter in found)

        code, shown = await ketch("dead", "show", second, broker=broker)
        assert code == 0
        assert '{"id": 1}' in shown
        assert "LookupError: no carrier for 1" in shown
        assert "Traceback" in shown

        broken = False
        code, said = await ketch("dead", "replay", first, broker=broker)
        assert (code, said) == (0, "Published 1 event again\n")
        await until(lambda: 0 in handled)

        code, said = await ketch("dead", "drop", third, broker=broker)
        assert (code, said) == (0, "Dropped 1 event\n")
        assert [letter["id"] for letter in await letters(broker, "--group", "shop")] == [second]
        assert await letters(broker, "--topic", "user.created") == []

        code, said = await ketch("dead", "replay", "--all", broker=broker)
        assert (code, said) == (0, "Published 1 event again\n")
        await until(lambda: 1 in handled)
        assert await letters(broker) == []
        code, said = await ketch("dead", "list", broker=broker)
        assert said.startswith("No dead letters at ")
    assert sorted(handled) == [0, 1, 3, 4]


async def test_what_cannot_be_done_is_said(broker):
    code, said = await ketch("dead", "drop", "nothing-like-it", broker=broker)
    assert code == 1
    assert "no dead letter nothing-like-it" in said
    code, said = await ketch("dead", "drop", broker=broker)
    assert code == 2
    assert "--all" in said


async def test_a_broker_that_keeps_none_says_which_do():
    code, said = await ketch("dead", "list", broker="direct")
    assert code == 2
    assert "direct keeps no dead letters; those that do: " in said
    assert "jetstream" in said


async def test_tail_refuses_what_the_broker_cannot_do():
    code, said = await ketch("tail", "order.*", broker="direct")
    assert code == 2
    assert "order.* is a pattern of topics, which broker direct doesn't know" in said


async def test_tail_looks_back_where_the_broker_can(broker):
    async with testing.run(broker=broker) as app:
        publisher = await app.publisher(placed)
        await app.client.options.broker.declare(placed.name, group="witness")
        await publisher.publish(Order(7))
        code, said = await ketch("tail", "order.placed", "--since", "60", "--count", "1", broker=broker)
    assert code == 0
    assert '{"id": 7}' in said
    code, said = await ketch("tail", "order.placed", "--since", "60", broker="direct")
    assert code == 2
    assert "can't look back" in said
