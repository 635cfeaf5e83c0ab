"""Several at a time: limits, order by key, retries beside the others, drain."""

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch import RetryPolicy, Service, Topic, testing
from ketch.brokers.memory import MemoryBroker
from ketch.consumer.lanes import Lanes
from ketch.errors import ConfigurationError


@dataclass
class Order:
    id: int
    user: str = ""


placed = Topic("order.placed", Order, key=lambda order: order.user)
plain = Topic("order.placed", Order)


class Gate:
    """Handlers that wait until they are let through, and a count of those that run."""

    def __init__(self, expected):
        self.running = self.most = 0
        self.seen = []
        self.done = asyncio.Event()
        self.expected = expected

    async def pass_(self, order, seconds=0.0):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.running -= 1
        self.seen.append(order)
        if len(self.seen) == self.expected:
            self.done.set()


async def test_events_of_one_key_are_handled_in_order_and_others_beside_them():
    service, gate = Service("shop"), Gate(60)

    @service.subscribe(placed, concurrency=8)
    async def ship(order: Order) -> None:
        await gate.pass_(order, 0.001 * (order.id % 7))

    async with testing.run(service) as app:
        for number in range(60):
            await app.publish(placed, Order(number, f"user {number % 5}"))
        await asyncio.wait_for(gate.done.wait(), 10)
    for user in range(5):
        own = [order.id for order in gate.seen if order.user == f"user {user}"]
        assert own == sorted(own)
    assert 2 <= gate.most <= 5  # five keys, so no more than five run


async def test_a_key_may_be_taken_from_the_payload_by_the_subscriber():
    service, gate = Service("shop"), Gate(30)

    @service.subscribe(plain, concurrency=8, order_by=lambda order: order.user)
    async def ship(order: Order) -> None:
        await gate.pass_(order, 0.001 * (order.id % 5))

    async with testing.run(service) as app:
        for number in range(30):
            await app.publish(plain, Order(number, str(number % 3)))
        await asyncio.wait_for(gate.done.wait(), 10)
    for user in "012":
        own = [order.id for order in gate.seen if order.user == user]
        assert own == sorted(own)
    assert gate.most <= 3


async def test_a_published_key_wins_over_the_topics():
    service, gate = Service("shop"), Gate(2)

    @service.subscribe(placed)
    async def ship(order: Order) -> None:
        await gate.pass_(order)

    async with testing.run(service) as app:
        publisher = await app.publisher(placed)
        subscription = await app.client.options.broker.subscribe(placed.name, group=None)
        await publisher.publish(Order(1, "Ada"))
        await publisher.publish(Order(2, "Ada"), key="Grace")
        await asyncio.wait_for(gate.done.wait(), 5)
        keys = []
        while len(keys) < 2:
            keys += [delivery.message.key for delivery in await subscription.receive()]
    assert keys == ["Ada", "Grace"]


@pytest.mark.parametrize("key", ["a\nb", "x" * 256, " padded"])
async def test_a_key_that_cannot_travel_is_refused(key):
    async with testing.run() as app:
        with pytest.raises(ConfigurationError, match="key"):
            await (await app.publisher(plain)).publish(Order(1), key=key)


async def test_no_more_run_than_the_concurrency_and_all_are_used():
    service, gate = Service("shop"), Gate(40)

    @service.subscribe(plain, concurrency=4)
    async def ship(order: Order) -> None:
        await gate.pass_(order, 0.002)

    async with testing.run(service) as app:
        for number in range(40):
            await app.publish(plain, Order(number))
        await asyncio.wait_for(gate.done.wait(), 10)
    assert gate.most == 4


async def test_one_that_waits_for_its_retry_holds_up_its_key_alone():
    service, gate, failures = Service("shop"), Gate(6), []

    @service.subscribe(placed, concurrency=2, retry=RetryPolicy(backoff=0.1, jitter=0))
    async def ship(order: Order) -> None:
        if order.user == "unlucky" and order.id == 0 and not failures:
            failures.append(order)
            raise OSError("once")
        await gate.pass_(order)

    async with testing.run(service) as app:
        for number in range(3):
            await app.publish(placed, Order(number, "unlucky"))
        for number in range(3):
            await app.publish(placed, Order(number, "lucky"))
        await asyncio.wait_for(gate.done.wait(), 5)
    assert [order.user for order in gate.seen] == ["lucky"] * 3 + ["unlucky"] * 3
    assert [order.id for order in gate.seen] == [0, 1, 2, 0, 1, 2]


async def test_what_waits_for_its_retry_is_given_back_when_the_service_stops():
    service, failed = Service("shop"), asyncio.Event()

    @service.subscribe(placed, concurrency=2, retry=RetryPolicy(backoff=60))
    async def ship(order: Order) -> None:
        failed.set()
        raise OSError("not now")

    other = MemoryBroker("given-back")
    async with testing.run(broker=other) as app:
        publisher = await app.publisher(placed)
        async with testing.run(service, broker=MemoryBroker("given-back")):
            await publisher.publish(Order(1))
            await asyncio.wait_for(failed.wait(), 5)
        subscription = await other.subscribe(placed.name, group="shop")
        async with asyncio.timeout(5):
            (delivery,) = await subscription.receive()
    assert delivery.attempt == 2


async def test_a_handler_cut_off_at_the_end_of_the_grace_leaves_its_event_to_others():
    """What was cancelled isn't settled: it is delivered again."""
    service, started = Service("shop"), asyncio.Event()

    @service.subscribe(plain, concurrency=2)
    async def ship(order: Order) -> None:
        started.set()
        await asyncio.sleep(60)

    other = MemoryBroker("cut-off")
    async with testing.run(broker=other) as app:
        publisher = await app.publisher(plain)
        async with testing.run(service, broker=MemoryBroker("cut-off"), shutdown_grace=0.05):
            await publisher.publish(Order(1))
            await asyncio.wait_for(started.wait(), 5)
        subscription = await other.subscribe(plain.name, group="shop")
        async with asyncio.timeout(5):
            assert len(await subscription.receive()) == 1


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(0, 3)), max_size=60))
def test_lanes_never_let_two_of_a_key_out_and_lose_nothing(steps):
    """Puts and takes in any order, some taken twice as a retry would have it."""
    lanes, out, taken, put = Lanes(), [], [], []
    for number, (key, act) in enumerate(steps):
        lanes.put(key, (key, number))
        put.append((key, number))
        for _ in range(act):
            if lanes.ready:
                lane, item = lanes.take()
                assert lane is None or lane not in [other for other, _ in out]
                out.append((lane, item))
            elif out:
                lane, item = out.pop(0)
                taken.append(item)
                lanes.done(lane)
    while out or lanes.ready:
        while lanes.ready:
            out.append(lanes.take())
        key, item = out.pop(0)
        taken.append(item)
        lanes.done(key)
    assert len(lanes) == 0
    assert sorted(taken) == sorted(put)
    for name in "abc":
        own = [number for key, number in taken if key == name]
        assert own == sorted(own)
