"""What is Kafka's own: how events look to its plain clients, its refusals, its driver's ends.

The server is Tansu, which lets each member of a group wait for five seconds: few of these tests have a group.
"""

import asyncio
import contextlib
import os
from uuid import uuid4

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

from ketch.broker import Outcome, Site
from ketch.brokers.kafka import KafkaBroker
from ketch.errors import BrokerError, BrokerUnavailable, MessageTooLarge
from ketch.message import KEY, Message, event_headers, stamp
from ketch.testing.servers import free_port, kafka_server
from ketch.url import Url

pytestmark = [pytest.mark.xdist_group("kafka"), pytest.mark.asyncio]

SITE = Site("test", "1", None, None)
SHARED = event_headers(source="shop", type="shop.v1.Order", content_type="application/protobuf")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    async with contextlib.AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(kafka_server())
        except RuntimeError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error), allow_module_level=False)
        yield server


@contextlib.asynccontextmanager
async def opened(server, options="partitions=2"):
    broker = KafkaBroker.from_url(Url.parse(f"{server.url}?{options}"))
    try:
        await broker.open(SITE)
        yield broker
    finally:
        await broker.close()


@pytest_asyncio.fixture
async def broker(server):
    async with opened(server) as broker:
        yield broker


@pytest.fixture
def topic():
    return f"t.{uuid4().hex[:12]}"


def address(server):
    return server.url.partition("://")[2]


@contextlib.asynccontextmanager
async def running(client):
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


def producer(server, **options):
    return running(AIOKafkaProducer(bootstrap_servers=address(server), **options))


def event(topic, body=b"x", **headers):
    return Message(topic, stamp({**SHARED, **headers}), body)


async def take(subscription, count=1):
    taken = []
    while len(taken) < count:
        async with asyncio.timeout(30):
            batch = await subscription.receive()
        await subscription.settle([(delivery, Outcome.DONE) for delivery in batch])
        taken += (delivery.message for delivery in batch)
    return taken


# --- the wire


async def test_a_plain_client_reads_an_event_by_the_binding_of_cloudevents(server, broker, topic):
    sent = event(topic, b"\x00body", tenant="bbc", **{KEY: "user-7"})
    await broker.publish(sent)
    reader = AIOKafkaConsumer(topic, bootstrap_servers=address(server), auto_offset_reset="earliest")
    async with running(reader), asyncio.timeout(20):
        record = await reader.getone()
    assert (record.value, record.key) == (b"\x00body", b"user-7")
    assert dict(record.headers) == {
        "ce_specversion": b"1.0",
        "ce_source": b"shop",
        "ce_type": b"shop.v1.Order",
        "content-type": b"application/protobuf",
        "ce_id": sent.id.encode(),
        "ce_time": sent.time.encode(),
        "ce_partitionkey": b"user-7",
        "tenant": b"bbc",
    }


async def test_we_read_the_events_of_a_plain_client_with_headers_and_without(server, broker, topic):
    subscription = await broker.subscribe(topic, group=None)
    async with producer(server) as plain:
        await plain.send_and_wait(topic, b"bare")
        (came,) = await take(subscription)
        assert (came.topic, came.body, dict(came.headers)) == (topic, b"bare", {})
        headers = [("ce_id", b"7"), ("Content-Type", b"text/plain"), ("Tenant", b"bbc")]
        await plain.send_and_wait(topic, b"named", key=b"k", headers=headers)
        (came,) = await take(subscription)
        assert (came.id, came.content_type, came.key, came.metadata) == ("7", "text/plain", "k", {"tenant": "bbc"})
        await plain.send_and_wait(topic, None, key=b"tombstone")
        (came,) = await take(subscription)
        assert (came.key, came.body) == ("tombstone", b"")


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_what_was_compressed_is_read_and_may_be_published(server, topic, compression):
    async with opened(server, f"partitions=1&compression={compression}") as broker:
        subscription = await broker.subscribe(topic, group=None)
        async with producer(server, compression_type=compression) as plain:
            await plain.send_and_wait(topic, b"theirs " * 100)
        await broker.publish(event(topic, b"ours " * 100))
        assert [came.body for came in await take(subscription, 2)] == [b"theirs " * 100, b"ours " * 100]


async def test_events_of_a_key_go_where_other_clients_send_theirs(server, broker, topic):
    await broker.publish(event(topic, b"ours", **{KEY: "user-7"}))
    async with producer(server) as plain:
        theirs = await plain.send_and_wait(topic, b"theirs", key=b"user-7")
    subscription = await broker.subscribe(topic, group=None, since=0.0)
    assert [came.body for came in await take(subscription, 2)] == [b"ours", b"theirs"]
    assert theirs.offset == 1


async def test_a_topic_of_a_name_that_kafka_does_not_take_works_all_the_same(broker):
    topic = f"orders/{uuid4().hex[:8]} über"
    subscription = await broker.subscribe(topic, group=None)
    await broker.publish(event(topic, b"x"))
    (came,) = await take(subscription)
    assert (came.topic, came.body) == (topic, b"x")


# --- what is made


async def test_a_topic_is_made_with_the_partitions_that_the_url_says(server, topic):
    async with opened(server, "partitions=3") as broker:
        await broker.declare(topic, group="g")
    reader = AIOKafkaConsumer(bootstrap_servers=address(server), group_id=f"g/{topic}", enable_auto_commit=False)
    async with running(reader):
        await reader.topics()
        assert await reader.committed(TopicPartition(topic, 0)) == 0
        assert reader.partitions_for_topic(topic) == {0, 1, 2}


async def test_the_group_of_a_topic_commits_what_is_settled_and_not_what_is_not(server, topic):
    async with opened(server, "partitions=1") as broker:
        subscription = await broker.subscribe(topic, group="g")
        for number in range(3):
            await broker.publish(event(topic, b"%d" % number))
        held = []
        while len(held) < 3:
            async with asyncio.timeout(30):
                held += await subscription.receive()
        await subscription.settle([(held[0], Outcome.DONE), (held[2], Outcome.DONE)])
        await subscription.close()
        await subscription.settle([(held[1], Outcome.DONE)])  # too late, and no error
        reader = AIOKafkaConsumer(bootstrap_servers=address(server), group_id=f"g/{topic}", enable_auto_commit=False)
        async with running(reader):
            assert await reader.committed(TopicPartition(topic, 0)) == 1


# --- refusals


async def test_a_body_over_the_limit_is_refused_before_it_is_sent(broker, topic):
    with pytest.raises(MessageTooLarge, match="1000000"):
        await broker.publish(event(topic, bytes(1_000_001)))


async def test_no_server_says_what_to_do_and_no_password():
    url = Url.parse(f"kafka://ann:s3cret@127.0.0.1:{free_port()}?connect_timeout=0.5")
    broker = KafkaBroker.from_url(url)
    with pytest.raises(BrokerUnavailable, match="is it running") as caught:
        await broker.open(SITE)
    assert "s3cret" not in str(caught.value) + broker.location


async def test_a_broker_that_is_not_open_says_so(topic):
    broker = KafkaBroker.from_url(Url.parse("kafka://127.0.0.1:9092"))
    with pytest.raises(BrokerError, match="isn't open"):
        await broker.publish(event(topic))
    with pytest.raises(BrokerError, match="isn't open"):
        await broker.subscribe(topic, group=None)


# --- what goes wrong


async def test_a_receive_that_is_cancelled_loses_nothing(broker, topic):
    subscription = await broker.subscribe(topic, group=None)
    sent = [b"%d" % number for number in range(100)]
    publishing = asyncio.gather(*(broker.publish(event(topic, body)) for body in sent))
    came = []
    while len(came) < len(sent):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.002):
                came += await subscription.receive()
    await publishing
    assert sorted(delivery.message.body for delivery in came) == sorted(sent)


async def test_a_driver_that_has_come_to_an_end_is_trouble_and_ends_the_subscription(broker, topic):
    """Otherwise the process would be up and its consumer dead."""
    subscription = await broker.subscribe(topic, group=None)
    assert subscription.trouble == ""
    task = subscription._consumer._fetcher.error_future
    task.cancel()
    await asyncio.wait({task})
    assert "stopped" in subscription.trouble
    with pytest.raises(BrokerError, match="stopped"):
        async with asyncio.timeout(20):
            await subscription.receive()


async def test_a_producer_that_has_come_to_an_end_is_replaced(broker, topic):
    await broker.publish(event(topic, b"before"))
    sender = broker._publishing._producer._sender.sender_task
    sender.cancel()
    await asyncio.wait({sender})
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(BrokerError):
                await broker.publish(event(topic, b"after"))
                break
    assert broker.trouble == ""


async def test_closing_ends_though_the_server_is_away(topic):
    async with kafka_server() as server, opened(server, "partitions=1&timeout=1") as broker:
        await broker.subscribe(topic, group=None)
        await server.kill()
        async with asyncio.timeout(30):
            await broker.close()
