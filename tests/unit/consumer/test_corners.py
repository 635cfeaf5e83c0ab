"""Where a consumer could lose the order, a settlement, or its life."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from ketch import RetryPolicy, Service, Topic, testing
from ketch.broker import DEAD_LETTERS
from ketch.brokers.memory import MemoryBroker
from ketch.deadletter import DeadLetter
from ketch.errors import BrokerError, MessageTooLarge
from ketch.message import Message


@dataclass
class Order:
    id: int
    user: str = ""
    items: list[str] = field(default_factory=list)


placed = Topic("order.placed", Order, key=lambda order: order.user)
PATIENT = RetryPolicy(attempts=9, backoff=30.0, jitter=0.0)


async def wait_until(true):
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - not everything that is waited for has an event
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("terms", [{}, {"concurrency": 3}])
async def test_a_stop_gives_back_what_is_behind_an_event_that_waits_for_its_retry(terms):
    """So that the order holds over a restart, and the stop doesn't wait for its grace period."""
    async with AsyncExitStack() as stack:
        keeper = await stack.enter_async_context(testing.run(Service("keeper"), broker=f"memory://order-{len(terms)}"))
        failing, tried = Service("shop"), []

        @failing.subscribe(placed, retry=PATIENT, **terms)
        async def fail(order: Order) -> None:
            tried.append(order.id)
            if order.id == 0:
                raise ValueError("not yet")

        async with testing.run(failing, broker=f"memory://order-{len(terms)}"):
            for number in range(5):
                await keeper.publish(placed, Order(number, "one"))
            await wait_until(lambda: tried)
            began = time.monotonic()
        assert time.monotonic() - began < 5
        assert tried == [0]
        working, seen = Service("shop"), []

        @working.subscribe(placed, **terms)
        async def work(order: Order) -> None:
            seen.append(order.id)

        async with testing.run(working, broker=f"memory://order-{len(terms)}"):
            await wait_until(lambda: len(seen) == 5)
        assert seen == list(range(5))


@pytest.mark.parametrize("terms", [{}, {"concurrency": 3}])
async def test_an_event_that_fails_while_it_stops_does_not_let_the_next_of_its_key_pass(terms):
    async with AsyncExitStack() as stack:
        world = f"memory://passing-{len(terms)}"
        keeper = await stack.enter_async_context(testing.run(Service("keeper"), broker=world))
        failing, tried, fail_now = Service("shop"), [], asyncio.Event()

        @failing.subscribe(placed, retry=PATIENT, **terms)
        async def fail(order: Order) -> None:
            tried.append(order.id)
            await fail_now.wait()
            raise ValueError("not yet")

        async with testing.run(failing, broker=world):
            for number in range(3):
                await keeper.publish(placed, Order(number, "one"))
            await wait_until(lambda: tried)
            asyncio.get_running_loop().call_later(0.2, fail_now.set)
        assert tried == [0]


async def test_an_order_by_that_fails_stops_nothing_and_is_told(caplog):
    service, seen = Service("shop"), []

    @service.subscribe(placed, concurrency=2, order_by=lambda order: order.items[0])
    async def ship(order: Order) -> None:
        seen.append(order.id)

    async with testing.run(service) as app:
        await app.publish(placed, Order(1))
        await app.publish(placed, Order(2, items=["x"]))
        await wait_until(lambda: len(seen) == 2)
        assert service.health.trouble() == ""
    assert "order_by" in caplog.text
    assert "broke off" not in caplog.text


class Refusing(MemoryBroker):
    """A broker that takes no dead letter: it is too large."""

    async def publish(self, message, *, delay=0.0):
        if message.topic == DEAD_LETTERS:
            raise MessageTooLarge("over the limit")
        await super().publish(message, delay=delay)


async def test_an_event_too_large_for_the_dead_letters_holds_up_no_others(caplog):
    service, seen = Service("shop"), []

    @service.subscribe(placed, retry=RetryPolicy(attempts=1))
    async def ship(order: Order) -> None:
        if order.id == 1:
            raise ValueError("no")
        seen.append(order.id)

    async with testing.run(service, broker=Refusing("refusing")) as app:
        await app.publish(placed, Order(1))
        await app.publish(placed, Order(2))
        await wait_until(lambda: seen == [2])
    assert "too large for the dead letters" in caplog.text


class Interrupting(MemoryBroker):
    """A broker's plugin with a bug: something of its own was cancelled, and it lets that out."""

    def __init__(self, name, where):
        super().__init__(name)
        self.where = where
        self.times = 1

    async def subscribe(self, topic, **terms):
        subscription = await super().subscribe(topic, **terms)
        if topic == placed.name:
            real = getattr(subscription, self.where)

            async def interrupted(*args):
                if self.times:
                    self.times -= 1
                    raise asyncio.CancelledError
                return await real(*args)

            setattr(subscription, self.where, interrupted)
        return subscription


@pytest.mark.parametrize("where", ["receive", "settle"])
@pytest.mark.parametrize("terms", [{}, {"concurrency": 2}, {"batch": 2, "within": 0.01}])
async def test_a_cancellation_that_nobody_asked_for_ends_no_consumer(where, terms):
    service, seen = Service("shop"), []

    @service.subscribe(placed, **terms)
    async def ship(order) -> None:  # or a list of them
        seen.append(order)

    async with testing.run(service, broker=Interrupting(f"interrupting-{where}-{len(terms)}", where)) as app:
        for number in range(4):
            await app.publish(placed, Order(number))
            await asyncio.sleep(0.02)
        await wait_until(lambda: sum(len(s) if isinstance(s, list) else 1 for s in seen) >= 4)
        await wait_until(lambda: service.health.trouble() == "")
        consumer = service._declared.consumers[0]
        assert not consumer._intake._settler._task.done()


class Slow(MemoryBroker):
    """A broker that loses a subscription, and takes its time to make it again."""

    def __init__(self, name):
        super().__init__(name)
        self.subscribing, self.go_on, self.lose = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def subscribe(self, topic, **terms):
        if topic == placed.name and self.lose.is_set():
            self.subscribing.set()
            await self.go_on.wait()
        subscription = await super().subscribe(topic, **terms)
        if topic == placed.name and not self.lose.is_set():
            subscription.receive = self._receive
        return subscription

    async def _receive(self):
        await self.lose.wait()
        raise BrokerError("lost")


async def test_a_stop_while_it_subscribes_anew_takes_no_more_events():
    service, seen = Service("shop"), []

    @service.subscribe(placed)
    async def ship(order: Order) -> None:
        seen.append(order.id)
        await asyncio.sleep(0)

    broker = Slow("slow-to-subscribe")
    async with testing.run(Service("keeper"), broker="memory://slow-to-subscribe") as keeper:
        async with testing.run(service, broker=broker):
            broker.lose.set()
            await asyncio.wait_for(broker.subscribing.wait(), 5)
            for number in range(5000):
                await keeper.publish(placed, Order(number))
            asyncio.get_running_loop().call_later(0.1, broker.go_on.set)
            began = time.monotonic()
        assert time.monotonic() - began < 5
    assert len(seen) < 2000


async def test_a_fault_in_leaving_a_subscription_ends_no_consumer():
    service, seen = Service("shop"), []

    @service.subscribe(placed)
    async def ship(order: Order) -> None:
        seen.append(order.id)

    class Faulty(MemoryBroker):
        faults = 1

        async def subscribe(self, topic, **terms):
            subscription = await super().subscribe(topic, **terms)
            if topic == placed.name and self.faults:
                self.faults -= 1

                async def fail():
                    raise BrokerError("lost")

                real = subscription.close

                async def close():
                    subscription.close = real
                    await real()
                    raise OSError("a bug in the plugin")

                subscription.receive, subscription.close = fail, close
            return subscription

    async with testing.run(service, broker=Faulty("faulty")) as app:
        await wait_until(lambda: service.health.trouble() == "" and service._declared.consumers[0].restarts)
        await app.publish(placed, Order(1))
        await wait_until(lambda: seen == [1])


async def test_batches_in_hand_are_seen_through_when_their_subscription_is_lost():
    service, finished, finish = Service("shop"), [], asyncio.Event()

    @service.subscribe(placed, batch=1, concurrency=2)
    async def ship(orders: list[Order]) -> None:
        await finish.wait()
        finished.extend(order.id for order in orders)

    class Losing(MemoryBroker):
        lose = asyncio.Event()
        subscribed = 0

        async def subscribe(self, topic, **terms):
            subscription = await super().subscribe(topic, **terms)
            if topic == placed.name:
                self.subscribed += 1
                if self.subscribed == 1:
                    real = subscription.receive

                    async def receive():
                        if finishing:
                            await self.lose.wait()
                            raise BrokerError("lost")
                        finishing.append(1)
                        return await real()

                    subscription.receive = receive
            return subscription

    finishing: list[int] = []
    broker = Losing("losing-batches")
    async with testing.run(service, broker=broker) as app:
        await app.publish(placed, Order(1))
        await wait_until(lambda: service._declared.consumers[0].stats.running == 1)
        broker.lose.set()
        await asyncio.sleep(0.05)
        finish.set()
        await wait_until(lambda: broker.subscribed == 2)
        await wait_until(lambda: finished)
        assert service._declared.consumers[0].stats.handled >= 1
    assert finished[0] == 1


async def test_a_codec_with_a_fault_gives_up_its_event_and_not_the_batch():
    service, seen = Service("shop"), []
    odd = Topic("order.odd", Order)

    @service.subscribe(odd, batch=2, within=0.05, retry=RetryPolicy(attempts=1))
    async def ship(orders: list[Order]) -> None:
        seen.extend(order.id for order in orders)

    async with testing.run(service) as app:
        consumer = service._declared.consumers[0]
        real = consumer._handling.decode

        def decode(message):
            if b"13" in message.body:
                raise ValueError("a fault in a codec")
            return real(message)

        consumer._handling.decode = decode
        for number in (12, 13, 14):
            await app.publish(odd, Order(number))
        await wait_until(lambda: sorted(seen) == [12, 14])
        assert consumer.stats.dead == 1


def test_a_dead_letters_headers_hold_no_control_characters():
    error = ValueError("with \r\x1b[31m\0 and\ttabs\nand lines")
    said = DeadLetter.of(Message("a", {}, b""), "g", "h", error, 1)
    letter = said.letter(Message("a", {}, b""), DEAD_LETTERS)
    for value in letter.headers.values():
        assert value.isprintable(), value
    assert "and\ttabs\nand lines".replace("\t", " ") in DeadLetter.read(letter).trace
