"""What a publisher can say beside the payload: when, and under which key; and patterns of topics."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from ketch import Call, Kind, Service, Topic, context, testing
from ketch.errors import CapabilityError, ConfigurationError
from ketch.pattern import is_pattern, matches


@dataclass
class Order:
    id: int


placed = Topic("order.placed", Order)
every = Topic("order.*", Order)


def collecting(service, topic, expected):
    seen, done = [], asyncio.Event()

    @service.subscribe(topic)
    async def ship(order: Order) -> None:
        seen.append((context.current().name, order.id))
        if len(seen) == expected:
            done.set()

    return seen, done


@pytest.mark.parametrize("when", ["delay", "at"])
async def test_an_event_may_be_published_for_later(when):
    service = Service("shop")
    seen, done = collecting(service, placed, 2)
    async with testing.run(service) as app:
        publisher = await app.publisher(placed)
        loop = asyncio.get_running_loop()
        began = loop.time()
        terms = {"delay": 0.1} if when == "delay" else {"at": datetime.now(UTC) + timedelta(seconds=0.1)}
        await publisher.publish(Order(1), **terms)
        await publisher.publish(Order(2))
        await asyncio.wait_for(done.wait(), 5)
        assert loop.time() - began >= 0.08
    assert [number for _, number in seen] == [2, 1]


async def test_a_time_that_has_passed_is_now():
    service = Service("shop")
    seen, done = collecting(service, placed, 1)
    async with testing.run(service) as app:
        await (await app.publisher(placed)).publish(Order(1), at=datetime(2001, 1, 1, tzinfo=UTC))
        await asyncio.wait_for(done.wait(), 5)
    assert seen == [("order.placed", 1)]


async def test_a_delay_passes_the_middleware_which_may_change_it():
    async def at_once(call: Call, call_next):
        if call.kind is Kind.PUBLISH:
            assert call.delay == 3600
            call.delay = 0
        return await call_next(call)

    service = Service("shop", middleware=[at_once])
    publisher = service.publisher(placed)
    seen, done = collecting(service, placed, 1)
    async with testing.run(service):
        await publisher.publish(Order(1), delay=3600)
        await asyncio.wait_for(done.wait(), 5)
    assert seen


async def test_a_broker_that_cannot_hold_events_back_says_so():
    async with testing.run(broker="direct") as app:
        publisher = await app.publisher(placed)
        with pytest.raises(CapabilityError, match=r"direct can't hold events back"):
            await publisher.publish(Order(1), delay=5)


@pytest.mark.parametrize(
    "terms",
    [
        {"delay": -1},
        {"delay": float("nan")},
        {"delay": 1, "at": datetime(2030, 1, 1, tzinfo=UTC)},
        {"at": datetime(2030, 1, 1)},  # noqa: DTZ001 - that is the case
    ],
)
async def test_a_time_that_makes_no_sense_is_refused(terms):
    async with testing.run() as app:
        publisher = await app.publisher(placed)
        with pytest.raises(ConfigurationError):
            await publisher.publish(Order(1), **terms)


async def test_a_pattern_of_topics_is_heard_and_the_handler_knows_which():
    service = Service("shop")
    seen, done = collecting(service, every, 2)
    async with testing.run(service) as app:
        await app.publish(placed, Order(1))
        await app.publish(Topic("order.paid", Order), Order(2))
        await app.publish(Topic("order.paid.late", Order), Order(3))
        await asyncio.wait_for(done.wait(), 5)
    assert seen == [("order.placed", 1), ("order.paid", 2)]


async def test_a_pattern_cannot_be_published_to_and_needs_a_broker_that_knows_it():
    with pytest.raises(ConfigurationError, match="pattern"):
        Service("shop").publisher(every)
    service = Service("shop")
    collecting(service, every, 1)
    with pytest.raises(CapabilityError, match=r"order\.\* is a pattern.*Brokers that do: .*memory"):
        async with testing.run(service, broker="direct"):
            pytest.fail("it must not start")


async def test_the_past_needs_a_broker_that_keeps_it_and_a_time_zone():
    service = Service("shop")
    with pytest.raises(ConfigurationError, match="time zone"):
        service.subscribe(placed, since=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the case

    @service.subscribe(placed, since=datetime(2026, 1, 1, tzinfo=UTC))
    async def ship(order: Order) -> None: ...

    with pytest.raises(CapabilityError, match="from the past"):
        async with testing.run(service):
            pytest.fail("it must not start")


@pytest.mark.parametrize(
    ("pattern", "topic", "is_one"),
    [
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("a.*", "a.", False),
        ("*.b", "a.b", True),
        ("a.>", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a.b", True),
        ("a.b", "a.b", True),
        ("a.b", "aXb", False),
        ("a*.b", "ab.b", False),
    ],
)
def test_patterns(pattern, topic, is_one):
    assert matches(pattern, topic) is is_one


def test_what_is_a_pattern():
    assert is_pattern("a.*")
    assert is_pattern("*.a")
    assert is_pattern("a.>")
    assert not is_pattern("a.b*")
    assert not is_pattern("a.>.b")
    assert not is_pattern("a")
