"""Handlers that take many events at once."""

import asyncio
from dataclasses import dataclass

import pytest

from ketch import Reject, RetryPolicy, Service, Topic, testing
from ketch.broker import DEAD_LETTERS
from ketch.errors import ConfigurationError, HandlerError
from ketch.message import Message


@dataclass
class Order:
    id: int


placed = Topic("order.placed", Order)


def collecting(service, expected, **terms):
    """Subscribe a handler that keeps what it gets."""
    batches, done = [], asyncio.Event()

    @service.subscribe(placed, **terms)
    async def store(orders: list[Order]) -> None:
        batches.append([order.id for order in orders])
        if sum(map(len, batches)) >= expected:
            done.set()

    return batches, done


@pytest.mark.parametrize("broker", ["memory", "direct"])
async def test_events_come_in_batches_of_the_size_asked_for(broker):
    service = Service("shop")
    batches, done = collecting(service, 25, batch=10, within=0.2)
    pinned = {} if broker == "memory" else {"broker": broker}
    async with testing.run(service, **pinned) as app:
        for number in range(25):
            await app.publish(placed, Order(number))
        await asyncio.wait_for(done.wait(), 5)
    assert [number for batch in batches for number in batch] == list(range(25))
    assert max(map(len, batches)) == 10
    assert len(batches) <= 5


async def test_a_batch_that_does_not_fill_comes_within_its_time():
    service = Service("shop")
    batches, done = collecting(service, 3, batch=100, within=0.05)
    async with testing.run(service) as app:
        for number in range(3):
            await app.publish(placed, Order(number))
        await asyncio.wait_for(done.wait(), 5)
    assert batches == [[0, 1, 2]]


async def test_a_batch_that_failed_is_tried_again_as_a_whole():
    service, calls, done = Service("shop"), [], asyncio.Event()

    @service.subscribe(placed, batch=3, within=1, retry=RetryPolicy(backoff=0.01))
    async def store(orders: list[Order]) -> None:
        calls.append([order.id for order in orders])
        if len(calls) == 1:
            raise OSError("the database restarts")
        done.set()

    async with testing.run(service) as app:
        for number in range(3):
            await app.publish(placed, Order(number))
        await asyncio.wait_for(done.wait(), 5)
    assert calls == [[0, 1, 2], [0, 1, 2]]


async def test_one_bad_event_of_a_batch_is_found_and_the_others_are_handled():
    service, stored, calls = Service("shop"), [], []

    @service.subscribe(placed, batch=5, within=1, retry=RetryPolicy(attempts=3, backoff=0.001))
    async def store(orders: list[Order]) -> None:
        calls.append(len(orders))
        if any(order.id == 3 for order in orders):
            raise ValueError("three is bad")
        stored.extend(order.id for order in orders)

    async with testing.run(service) as app:
        for number in range(5):
            await app.publish(placed, Order(number))
        letters = await app.client.options.broker.subscribe(DEAD_LETTERS, group=DEAD_LETTERS)
        async with asyncio.timeout(5):
            (letter,) = await letters.receive()
            while len(stored) < 4:  # noqa: ASYNC110 - a few turns of the loop
                await asyncio.sleep(0.001)
    assert letter.message.body == b'{"id":3}'
    assert letter.message.headers["ketch-dead-attempts"] == "3"
    assert sorted(stored) == [0, 1, 2, 4]
    assert calls == [5, 5, 1, 1, 1, 1, 1]


async def test_a_rejected_batch_is_rejected_as_a_whole():
    service = Service("shop")

    @service.subscribe(placed, batch=3, within=1)
    async def store(orders: list[Order]) -> None:
        raise Reject("the shop is closed")

    async with testing.run(service) as app:
        for number in range(3):
            await app.publish(placed, Order(number))
        letters = await app.client.options.broker.subscribe(DEAD_LETTERS, group=DEAD_LETTERS)
        came = []
        async with asyncio.timeout(5):
            while len(came) < 3:
                came += await letters.receive()
    assert sorted(d.message.body for d in came) == [b'{"id":0}', b'{"id":1}', b'{"id":2}']


async def test_a_body_that_cannot_be_decoded_does_not_spoil_its_batch():
    service = Service("shop")
    batches, done = collecting(service, 2, batch=3, within=1)
    async with testing.run(service) as app:
        publisher = await app.publisher(placed)
        await publisher.publish(Order(1))
        await app.client.options.broker.publish(Message(placed.name, {}, b"\xff"))
        await publisher.publish(Order(2))
        letters = await app.client.options.broker.subscribe(DEAD_LETTERS, group=DEAD_LETTERS)
        async with asyncio.timeout(5):
            await done.wait()
            (letter,) = await letters.receive()
    assert batches == [[1, 2]]
    assert letter.message.body == b"\xff"


async def test_a_stop_hands_over_what_was_gathered():
    service = Service("shop")
    batches, _ = collecting(service, 3, batch=100, within=60)
    async with testing.run(service) as app:
        for number in range(3):
            await app.publish(placed, Order(number))
        await asyncio.sleep(0.05)
    assert batches == [[0, 1, 2]]


async def test_several_batches_may_be_in_hand():
    service, running, most, done, seen = Service("shop"), [0], [0], asyncio.Event(), []

    @service.subscribe(placed, batch=2, within=0.01, concurrency=3)
    async def store(orders: list[Order]) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        await asyncio.sleep(0.02)
        running[0] -= 1
        seen.extend(orders)
        if len(seen) == 12:
            done.set()

    async with testing.run(service) as app:
        for number in range(12):
            await app.publish(placed, Order(number))
        await asyncio.wait_for(done.wait(), 5)
    assert most[0] == 3


def test_what_makes_no_sense_together_is_refused():
    service = Service("shop")
    for terms in ({"batch": 0}, {"batch": 5, "prefetch": 2}, {"batch": 5, "within": -1}):
        with pytest.raises(ConfigurationError):
            service.subscribe(placed, **terms)
    with pytest.raises(ConfigurationError, match="order_by"):
        service.subscribe(placed, batch=5, order_by=lambda order: order.id)

    async def one(order: Order) -> None: ...

    with pytest.raises(HandlerError, match=r"gets a list\[Order\]"):
        service.subscribe(placed, batch=5)(one)
