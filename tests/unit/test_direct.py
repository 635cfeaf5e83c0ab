"""direct's own business: opening again, closing while there is work, hostile batches."""

import asyncio
import logging
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from ketch.broker import Site
from ketch.brokers.direct import DirectBroker
from ketch.brokers.direct.audience import Audience
from ketch.brokers.direct.direct_pb2 import Batch
from ketch.codec import PROTOBUF
from ketch.directory import Directory
from ketch.errors import BrokerUnavailable, InvalidArgument, MessageTooLarge, RegistryError, Unavailable
from ketch.message import Message, event_headers, stamp
from ketch.registries.memory import MemoryRegistry
from ketch.registry import Instance
from ketch.transports.memory import MemoryTransport
from ketch.url import Url

SHARED = event_headers(source="unit", type="ketch.test.v1.Case", content_type="application/octet-stream")
DELIVER = "/ketch.direct.v1.Events/Deliver"


def message(body, **metadata):
    return Message("topic", stamp({**SHARED, **metadata}), body)


class Stubborn(MemoryRegistry):
    """A registry that can't be written any more when something leaves."""

    async def deregister(self, instance):
        del instance
        raise RegistryError("the disk is full")


class Silent(MemoryRegistry):
    """A registry that never says anything."""

    async def watch(self, name=None):
        del name
        await asyncio.Event().wait()
        yield ()


@asynccontextmanager
async def site(registry=MemoryRegistry):
    name = uuid4().hex
    async with registry(name) as open_registry, MemoryTransport.from_url(Url("memory", name)) as transport:
        yield Site("unit", "1", open_registry, transport)


@asynccontextmanager
async def opened(registry=MemoryRegistry):
    async with site(registry) as place:
        broker = DirectBroker()
        await broker.open(place)
        try:
            yield broker, place
        finally:
            await broker.close()


async def bodies(subscription, count):
    got = []
    async with asyncio.timeout(10):
        while len(got) < count:
            got += [delivery.message.body for delivery in await subscription.receive()]
    return got


def test_a_broker_can_be_opened_again_in_another_event_loop():
    broker = DirectBroker()

    async def live():
        async with site() as place:
            await broker.open(place)
            # At the same time: they wait for each other to listen.
            one, other = await asyncio.gather(*(broker.subscribe("topic", group=None) for _ in range(2)))
            await broker.publish(message(b"x"))
            assert await bodies(one, 1) == await bodies(other, 1) == [b"x"]
            await broker.close()
            await broker.close()

    for _ in range(2):
        asyncio.run(live())


async def test_what_is_published_before_close_arrives_and_after_it_is_refused():
    async with opened() as (publisher, place):
        subscriber = DirectBroker()
        await subscriber.open(place)
        subscription = await subscriber.subscribe("topic", group=None)
        sent = [b"%d" % number for number in range(1000)]
        for body in sent:
            await publisher.publish(message(body))
        closing = asyncio.create_task(publisher.close())
        await asyncio.sleep(0)
        with pytest.raises(BrokerUnavailable, match="isn't open"):
            await publisher.publish(message(b"late"))
        await closing
        assert await bodies(subscription, 1000) == sent
        await subscriber.close()


async def test_a_subscription_drains_though_the_registry_fails_while_it_stops(caplog):
    async with opened(Stubborn) as (broker, _):
        subscription = await broker.subscribe("topic", group=None)
        await broker.publish(message(b"1"))
        assert await bodies(subscription, 1) == [b"1"]
        with caplog.at_level(logging.WARNING, "ketch.broker"):
            await subscription.stop()
        assert await subscription.receive() == ()
        assert "topic: the subscription could not be taken off the registry: the disk is full" in caplog.text


async def test_an_event_that_is_too_large_with_its_headers_is_refused_where_it_is_published():
    async with opened() as (broker, _):
        await broker.subscribe("topic", group=None)
        with pytest.raises(MessageTooLarge, match="with headers"):
            await broker.publish(message(b"", much="x" * 4 * 1024 * 1024))


async def test_small_events_and_the_largest_one_share_no_batch_that_the_transport_would_refuse():
    async with opened() as (broker, _):
        subscription = await broker.subscribe("topic", group=None)
        sent = [b"s" * 60_000, bytes(broker.capabilities.max_message_size), b"s"]
        for body in sent:
            await broker.publish(message(body))
        assert await bodies(subscription, 3) == sent


@asynccontextmanager
async def hostile():
    """A subscription, and a stream to its process to send it anything; yields both and a batch that is addressed."""
    async with opened() as (broker, place):
        subscription = await broker.subscribe("topic", group=None)
        (instance,) = await anext(place.registry.watch("topic:topic"))
        channel = place.transport.connect(broker.location)
        stream = await channel.stream(DELIVER, content_type=PROTOBUF)
        try:
            yield subscription, stream, Batch(topic="topic", subscriptions=[instance.id])
        finally:
            stream.cancel()
            await channel.close()


async def test_an_absurd_number_of_events_in_one_batch_is_refused():
    async with hostile() as (_, stream, batch):
        await stream.send(batch.SerializeToString() + b"\x1a\x00" * 100_000)
        with pytest.raises(InvalidArgument, match="over the limit"):
            await stream.receive()


async def test_a_subscription_that_is_named_often_gets_an_event_once_and_those_of_other_topics_never():
    async with hostile() as (subscription, stream, batch):
        event = batch.events.add().event
        event.binary_data = b"once"
        batch.subscriptions.extend(list(batch.subscriptions) * 1000 + ["nobody"])
        await stream.send(batch.SerializeToString())
        batch.topic = "another"
        await stream.send(batch.SerializeToString())
        await stream.end()
        assert await stream.receive() is not None
        await subscription.stop()
        assert await bodies(subscription, 1) == [b"once"]
        assert await subscription.receive() == ()


async def test_who_sends_garbage_again_and_again_does_not_fill_the_log(caplog):
    async with opened() as (broker, place):
        await broker.subscribe("topic", group=None)
        channel = place.transport.connect(broker.location)
        for _ in range(50):
            stream = await channel.stream(DELIVER, content_type=PROTOBUF)
            await stream.send(b"\xff")
            with pytest.raises(InvalidArgument):
                await stream.receive()
        await channel.close()
    assert sum("no batch of events" in record.message for record in caplog.records) == 1


def members(*groups):
    return [
        Instance("topic:t", f"{group}{n}", f"{group}{n}:1", metadata={"group": group} if group else {})
        for n, group in enumerate(groups)
    ]


@pytest.mark.parametrize("groups", ["ab", "aab", "aabbb", "a" * 300, "a" * 17 + "b" * 19])
def test_each_group_gets_every_event_and_its_members_take_turns(groups):
    audience = Audience("t", members(*groups))
    rounds = len(groups) * 2
    counts = {}
    for _ in range(rounds):
        targets = audience.next()
        assert sorted(address[0] for address, _ in targets) == sorted(set(groups))
        for address, _ in targets:
            counts[address] = counts.get(address, 0) + 1
    for group in set(groups):
        shares = [count for address, count in counts.items() if address.startswith(group)]
        assert max(shares) - min(shares) <= 1


def test_programs_that_publish_one_event_each_do_not_all_choose_the_same_member():
    chosen = {Audience("t", members("a", "a")).next()[0][0] for _ in range(64)}
    assert chosen == {"a0:1", "a1:1"}


def test_nobody_is_an_audience_too():
    assert not Audience("t", ()).next()


async def test_who_waits_for_a_silent_registry_is_told_when_the_directory_is_closed():
    async with site(Silent) as place:
        directory = Directory(place.registry, "memory")
        looking = asyncio.create_task(directory.look("service"))
        await asyncio.sleep(0)
        await directory.close()
        with pytest.raises(Unavailable, match="closed while it was looked up"):
            await looking


@pytest.mark.parametrize("bug", [ZeroDivisionError, asyncio.CancelledError])
async def test_a_bug_of_a_registry_is_logged_and_outlived(caplog, bug):
    async with site() as place:
        instance = Instance("service", "1", "here:1", metadata={"transport": "memory"})
        watches = []

        async def watch(_name):
            watches.append(1)
            if len(watches) == 1:
                yield ()
                raise bug("oh")
            yield (instance,)
            await asyncio.Event().wait()

        place.registry.watch = watch
        changes = asyncio.Queue()
        directory = Directory(place.registry, "memory", changed=changes.put_nowait)
        await directory.look("service")
        async with asyncio.timeout(5):
            while not directory.known("service"):
                await changes.get()
        assert directory.known("service") == (instance,)
        await directory.close()
    assert bug.__name__ in caplog.text


async def test_a_directory_says_when_what_it_knows_has_changed():
    async with site() as place:
        changes = asyncio.Queue()
        directory = Directory(place.registry, "memory", changed=changes.put_nowait)
        await directory.look("service")
        await place.registry.register(Instance("other", "2", "there:1", metadata={"transport": "memory"}))
        instance = Instance("service", "1", "here:1", metadata={"transport": "memory"})
        await place.registry.register(instance)
        async with asyncio.timeout(5):
            while not directory.known("service"):
                assert await changes.get() == "service"
        assert directory.known("service") == (instance,)
        await directory.close()
