"""JetStream as a plain client and an operator see it: bindings, duplicates, consumers and streams that vanish."""

import asyncio
import shutil
from contextlib import asynccontextmanager

import nats
import pytest

from ketch.broker import Outcome, Site
from ketch.brokers.nats import JetStreamBroker
from ketch.errors import BrokerError, ConfigurationError
from ketch.message import Message, event_headers, stamp
from ketch.testing.servers import nats_server
from ketch.url import Url

SHARED = event_headers(source="test", type="shop.v1.Order", content_type="text/plain")

pytestmark = pytest.mark.xdist_group("jetstream")


@pytest.fixture
async def server():
    async with nats_server(jetstream=True) as server:
        yield server


@asynccontextmanager
async def opened(url):
    broker = JetStreamBroker.from_url(Url.parse(url))
    await broker.open(Site("test", "1", None, None))
    try:
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def plain(server):
    client = await nats.connect(server.url.replace("jetstream://", "nats://"))
    try:
        yield client
    finally:
        await client.close()


async def bodies(subscription, count):
    came = []
    async with asyncio.timeout(20):
        while len(came) < count:
            batch = await subscription.receive()
            await subscription.settle([(delivery, Outcome.DONE) for delivery in batch])
            came += [delivery.message.body for delivery in batch]
    return came


async def test_a_plain_client_reads_what_we_write_and_writes_what_we_read(server):
    async with opened(server.url) as broker, plain(server) as client:
        subscription = await broker.subscribe("order.placed", group="shop")
        sent = Message("order.placed", stamp(SHARED), b"ours")
        await broker.publish(sent)
        stream = client.jetstream()
        (read,) = await (await stream.pull_subscribe("order.placed", durable="plain")).fetch(1, timeout=5)
        assert read.data == b"ours"
        assert read.headers["ce-id"] == sent.id
        assert read.headers["Nats-Msg-Id"] == sent.dedup_id
        assert await bodies(subscription, 1) == [b"ours"]
        await stream.publish("order.placed", b"theirs")
        async with asyncio.timeout(10):
            (delivery,) = await subscription.receive()
        assert (delivery.message.body, dict(delivery.message.headers)) == (b"theirs", {})


async def test_an_event_that_is_published_twice_comes_once(server):
    async with opened(server.url) as broker:
        subscription = await broker.subscribe("order.placed", group="shop")
        twice = Message("order.placed", stamp(SHARED), b"twice")
        await broker.publish(twice)
        await broker.publish(twice)
        await broker.publish(Message("order.placed", stamp(SHARED), b"last"))
        assert await bodies(subscription, 2) == [b"twice", b"last"]


async def test_a_stream_of_somebody_elses_is_used(server):
    async with plain(server) as client, opened(server.url) as broker:
        await client.jetstream().add_stream(name="everything", subjects=["order.*"])
        subscription = await broker.subscribe("order.placed", group="shop")
        await broker.publish(Message("order.placed", stamp(SHARED), b"x"))
        assert await bodies(subscription, 1) == [b"x"]
        # The stream for all of `order` would overlap with it, so this topic gets one of its own.
        other = await broker.subscribe("order.placed.late", group="shop")
        await broker.publish(Message("order.placed.late", stamp(SHARED), b"y"))
        assert await bodies(other, 1) == [b"y"]


async def test_a_consumer_that_was_deleted_is_made_again_where_it_was(server):
    async with opened(server.url) as broker, plain(server) as client:
        subscription = await broker.subscribe("order.placed", group="shop")
        await broker.publish(Message("order.placed", stamp(SHARED), b"before"))
        assert await bodies(subscription, 1) == [b"before"]
        assert await client.jetstream().delete_consumer(subscription._stream, subscription._consumer)
        await broker.publish(Message("order.placed", stamp(SHARED), b"after"))
        assert await bodies(subscription, 1) == [b"after"]
        assert subscription.trouble == ""


async def test_a_server_that_comes_back_empty_is_filled_again(server):
    async with opened(f"{server.url}?timeout=10") as broker:
        subscription = await broker.subscribe("order.placed", group="shop")
        await broker.publish(Message("order.placed", stamp(SHARED), b"before"))
        assert await bodies(subscription, 1) == [b"before"]
        await server.kill()
        shutil.rmtree(server.folder / "jetstream")
        await server.start()
        heard = asyncio.create_task(bodies(subscription, 1))
        async with asyncio.timeout(20):
            while not heard.done():
                try:
                    await broker.publish(Message("order.placed", stamp(SHARED), b"after"))
                except BrokerError:
                    await asyncio.sleep(0.1)
                await asyncio.sleep(0.1)
        assert await heard == [b"after"]


async def test_one_stream_may_take_all_topics(server):
    async with opened(f"{server.url}?stream=shop") as broker, plain(server) as client:
        for topic in ("order.placed", "user.created"):
            subscription = await broker.subscribe(topic, group="g")
            await broker.publish(Message(topic, stamp(SHARED), topic.encode()))
            assert await bodies(subscription, 1) == [topic.encode()]
        info = await client.jetstream().stream_info("shop")
        assert {"order.placed", "user.created"} <= set(info.config.subjects)


async def test_a_server_without_jetstream_says_so():
    async with nats_server() as server, opened(server.url.replace("nats://", "jetstream://")) as broker:
        with pytest.raises(BrokerError, match="JetStream isn't enabled"):
            await broker.subscribe("order.placed", group="g")


@pytest.mark.parametrize("option", ["keep=-1", "replicas=9", "ack_wait=0", "envelope=go-micro", "nonsense=1"])
def test_an_option_that_makes_no_sense_is_refused(option):
    with pytest.raises(ConfigurationError):
        JetStreamBroker.from_url(Url.parse(f"jetstream://?{option}"))


@pytest.mark.parametrize(
    "fault", [ZeroDivisionError("a bug"), asyncio.CancelledError("a bug")], ids=["error", "cancelled"]
)
async def test_a_fault_of_ours_is_a_lost_subscription_and_no_silence(server, fault):
    async with opened(server.url) as broker:
        subscription = await broker.subscribe("order.placed", group="shop")

        async def fail(_count):
            raise fault

        subscription._ask = fail
        subscription._outstanding = 0
        subscription._wanted.set()
        with pytest.raises(BrokerError, match="broke off"):
            async with asyncio.timeout(10):
                await subscription.receive()
        assert "broke off" in subscription.trouble
        await subscription.close()
        again = await broker.subscribe("order.placed", group="shop")
        await broker.publish(Message("order.placed", stamp(SHARED), b"x"))
        assert await bodies(again, 1) == [b"x"]
