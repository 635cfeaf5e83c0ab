"""A consumer can't die in silence: it is made again, and says so until then."""

import asyncio
from dataclasses import dataclass

import pytest

from ketch import Service, Topic, testing
from ketch.brokers.memory import MemoryBroker
from ketch.errors import BrokerError, BrokerUnavailable, ConfigurationError, NotRunning


@dataclass
class Order:
    id: int


placed = Topic("order.placed", Order)


class Losing(MemoryBroker):
    """A broker whose subscriptions are lost when told so, and which refuses new ones for a while."""

    def __init__(self, name, error=None):
        super().__init__(name)
        self.error = error or BrokerError("the channel was closed")
        self.lost = asyncio.Event()
        self.refuse = 0
        self.subscribed = 0

    async def subscribe(self, topic, **terms):
        if self.lost.is_set():
            if self.refuse:
                self.refuse -= 1
                raise BrokerUnavailable("still away")
            self.lost.clear()
        subscription = await super().subscribe(topic, **terms)
        if topic == placed.name:
            self.subscribed += 1
            self._make_losable(subscription)
        return subscription

    def _make_losable(self, subscription):
        receive = subscription.receive

        async def receive_or_lose():
            receiving, losing = asyncio.ensure_future(receive()), asyncio.ensure_future(self.lost.wait())
            try:
                await asyncio.wait({receiving, losing}, return_when=asyncio.FIRST_COMPLETED)
                if receiving.done():
                    return receiving.result()
            finally:
                for task in (receiving, losing):
                    task.cancel()
            if self.error is None:
                return ()
            raise self.error

        subscription.receive = receive_or_lose


async def wait_until(true):
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - not everything that is waited for has an event
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("terms", [{}, {"concurrency": 3}, {"batch": 5, "within": 0.01}])
@pytest.mark.parametrize("error", [BrokerError("the channel was closed"), RuntimeError("a bug in the plugin")])
async def test_a_lost_subscription_is_made_again_and_health_tells_of_it(terms, error, caplog):
    service, seen = Service("shop"), []

    @service.subscribe(placed, **terms)
    async def ship(order) -> None:  # or a list of them
        seen.append(order)

    broker = Losing("losing", error)
    async with testing.run(service, broker=broker) as app:
        await app.publish(placed, Order(1))
        await wait_until(lambda: len(seen) == 1)
        assert service.health.trouble() == ""
        broker.refuse = 2
        broker.lost.set()
        await wait_until(lambda: "has lost its subscription" in service.health.trouble())
        await wait_until(lambda: broker.subscribed == 2 and not service.health.trouble())
        await app.publish(placed, Order(2))
        await wait_until(lambda: len(seen) == 2)
    assert str(error) in caplog.text
    assert "subscribed to order.placed again" in caplog.text


async def test_a_subscription_that_ends_by_itself_is_made_again(caplog):
    service, seen = Service("shop"), []

    @service.subscribe(placed)
    async def ship(order: Order) -> None:
        seen.append(order)

    broker = Losing("ending")
    broker.error = None
    async with testing.run(service, broker=broker) as app:
        broker.lost.set()
        await wait_until(lambda: broker.subscribed == 2)
        await app.publish(placed, Order(1))
        await wait_until(lambda: len(seen) == 1)
    assert "ended by itself" in caplog.text


async def test_handlers_in_hand_are_seen_through_when_their_subscription_is_lost():
    service, started, finish, finished = Service("shop"), asyncio.Event(), asyncio.Event(), []

    @service.subscribe(placed, concurrency=2)
    async def ship(order: Order) -> None:
        started.set()
        await finish.wait()
        finished.append(order.id)

    broker = Losing("in-hand")
    async with testing.run(service, broker=broker) as app:
        await app.publish(placed, Order(1))
        await asyncio.wait_for(started.wait(), 5)
        broker.lost.set()
        await asyncio.sleep(0.05)
        finish.set()
        await wait_until(lambda: broker.subscribed == 2)
    assert finished[0] == 1


async def test_a_stop_ends_the_attempts_to_come_back():
    service = Service("shop")

    @service.subscribe(placed)
    async def ship(order: Order) -> None: ...

    broker = Losing("gone")
    async with asyncio.timeout(5), testing.run(service, broker=broker):
        broker.refuse = 1_000_000
        broker.lost.set()
        await wait_until(lambda: "has lost its subscription" in service.health.trouble())


async def test_a_paused_handler_gets_nothing_until_it_is_resumed():
    service, seen = Service("shop"), []

    @service.subscribe(placed)
    async def ship(order: Order) -> None:
        seen.append(order.id)

    async with testing.run(service) as app:
        await app.publish(placed, Order(1))
        await wait_until(lambda: seen == [1])
        await service.pause(ship)
        await service.pause(ship)
        await app.publish(placed, Order(2))
        await asyncio.sleep(0.05)
        assert seen == [1]
        assert service.health.trouble() == ""
        await service.resume(ship)
        await service.resume(ship)
        await wait_until(lambda: seen == [1, 2])


async def test_a_pause_sees_through_what_is_in_hand():
    service, started, seen = Service("shop"), asyncio.Event(), []

    @service.subscribe(placed)
    async def ship(order: Order) -> None:
        started.set()
        await asyncio.sleep(0.05)
        seen.append(order.id)

    async with testing.run(service) as app:
        await app.publish(placed, Order(1))
        await asyncio.wait_for(started.wait(), 5)
        await service.pause(ship)
        assert seen == [1]


async def test_a_service_may_be_stopped_while_a_handler_is_paused():
    service = Service("shop")

    @service.subscribe(placed)
    async def ship(order: Order) -> None: ...

    async with testing.run(service):
        await service.pause(ship)
    async with testing.run(service):
        assert service.health.trouble() == ""


async def test_pausing_what_is_no_handler_or_does_not_run_is_an_error():
    service = Service("shop")

    @service.subscribe(placed)
    async def ship(order: Order) -> None: ...

    with pytest.raises(NotRunning):
        await service.pause(ship)
    async with testing.run(service):
        with pytest.raises(ConfigurationError, match="handles no topic"):
            await service.pause(wait_until)


class Slow(MemoryBroker):
    """A broker that counts how it is asked to settle."""

    def __init__(self, name):
        super().__init__(name)
        self.limits, self.settled = [], []

    async def subscribe(self, topic, **terms):
        subscription = await super().subscribe(topic, **terms)
        settle, limit = subscription.settle, subscription.limit

        async def counted(settled):
            self.settled.append(len(settled))
            await asyncio.sleep(0.01)
            await settle(settled)

        async def told(unsettled):
            self.limits.append(unsettled)
            await limit(unsettled)

        subscription.settle, subscription.limit = counted, told
        return subscription


async def test_settlements_gather_while_the_broker_takes_the_last_ones():
    service, seen = Service("shop"), []

    @service.subscribe(placed, prefetch=256)
    async def ship(order: Order) -> None:
        seen.append(order.id)

    broker = Slow("slow")
    async with testing.run(service, broker=broker) as app:
        for number in range(200):
            await app.publish(placed, Order(number))
        await wait_until(lambda: sum(broker.settled) == 200)
    assert seen == list(range(200))
    assert len(broker.settled) < 20
    assert broker.limits == []  # a prefetch that is said stays as it is


async def test_a_slow_handler_leaves_events_to_others_and_a_quick_one_takes_more_ahead():
    broker = Slow("pace")
    quick, slow = Service("quick"), Service("slow")
    seen = {"quick": 0, "slow": 0}

    @quick.subscribe(placed)
    async def ship(order: Order) -> None:
        seen["quick"] += 1

    @slow.subscribe(placed)
    async def wrap(order: Order) -> None:
        await asyncio.sleep(0.05)
        seen["slow"] += 1

    async with testing.run(quick, broker=broker) as app:
        for number in range(2000):
            await app.publish(placed, Order(number))
        await wait_until(lambda: seen["quick"] == 2000)
        assert max(broker.limits) == 256
    broker.limits.clear()
    async with testing.run(slow, broker=broker) as app:
        for number in range(20):
            await app.publish(placed, Order(number))
        await wait_until(lambda: seen["slow"] == 20)
    assert min(broker.limits) <= 6
