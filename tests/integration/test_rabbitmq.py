"""What is RabbitMQ's own: how events look to its plain clients, its refusals, its queues, its outages."""

import asyncio
import contextlib
import os
import shutil
from datetime import UTC, datetime
from uuid import uuid4

import aio_pika
import pytest
import pytest_asyncio
from pamqp.commands import Channel as ChannelMethods
from pamqp.commands import Queue

from ketch.broker import DEAD_LETTERS, Outcome, Site
from ketch.brokers.rabbitmq import RabbitMQBroker
from ketch.brokers.rabbitmq.channel import Channel
from ketch.errors import BrokerError, BrokerUnavailable, MessageTooLarge, SubscriptionRefused
from ketch.message import Message, event_headers, stamp
from ketch.testing.servers import free_port, rabbitmq_server
from ketch.url import Url

pytestmark = [pytest.mark.xdist_group("rabbitmq"), pytest.mark.asyncio]

SITE = Site("test", "1", None, None)
SHARED = event_headers(source="shop", type="shop.v1.Order", content_type="application/protobuf")


@contextlib.asynccontextmanager
async def running(config=""):
    try:
        context = rabbitmq_server(config)
        server = await context.__aenter__()
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error), allow_module_level=False)
    try:
        yield server
    finally:
        await context.__aexit__(None, None, None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    async with running("max_message_size = 3000000\n") as server:
        yield server


@contextlib.asynccontextmanager
async def opened(server, options="timeout=5"):
    broker = RabbitMQBroker.from_url(Url.parse(f"{server.url}?{options}"))
    try:
        await broker.open(SITE)
        yield broker
    finally:
        await broker.close()


@pytest_asyncio.fixture
async def broker(server):
    async with opened(server) as broker:
        yield broker


@pytest_asyncio.fixture
async def plain(server):
    """A channel of a plain client."""
    connection = await aio_pika.connect(server.url.replace("rabbitmq://", "amqp://guest:guest@"))
    async with connection, connection.channel() as channel:
        yield channel


@pytest.fixture
def topic():
    return f"t.{uuid4().hex[:12]}"


def event(topic, body=b"x", **metadata):
    return Message(topic, stamp({**SHARED, **metadata}), body)


async def next_batch(subscription):
    async with asyncio.timeout(20):
        return await subscription.receive()


async def take(subscription, count=1):
    taken = []
    while len(taken) < count:
        batch = await next_batch(subscription)
        await subscription.settle([(delivery, Outcome.DONE) for delivery in batch])
        taken += batch
    return taken


async def messages_in(broker, queue):
    """Return how many messages wait in a queue."""
    connection = await broker._in.connected()
    channel = connection.channel(Channel)
    _, found = await channel.call(ChannelMethods.Open(), Queue.Declare(queue=queue, passive=True), timeout=5)
    await channel.close(5)
    return found.message_count


async def until(true):
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.02)


# --- the wire


async def test_a_plain_client_reads_an_event_by_the_binding_of_cloudevents(broker, plain, topic):
    queue = await plain.declare_queue(exclusive=True)
    await queue.bind("ketch", topic)
    sent = event(topic, b"\x00body", tenant="bbc")
    await broker.publish(sent)
    came = await queue.get(timeout=5)
    assert came.body == b"\x00body"
    assert came.content_type == "application/protobuf"
    assert came.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert came.routing_key == topic
    assert came.headers == {
        "cloudEvents:specversion": "1.0",
        "cloudEvents:source": "shop",
        "cloudEvents:type": "shop.v1.Order",
        "cloudEvents:id": sent.id,
        "cloudEvents:time": sent.time,
        "tenant": "bbc",
    }


async def test_an_event_of_a_plain_client_without_any_headers_comes(broker, plain, topic):
    subscription = await broker.subscribe(topic, group="g")
    exchange = await plain.get_exchange("ketch")
    await exchange.publish(aio_pika.Message(b"bare"), topic)
    (delivery,) = await take(subscription)
    assert (delivery.message.topic, dict(delivery.message.headers), delivery.message.body) == (topic, {}, b"bare")


async def test_headers_of_a_plain_client_are_texts_whatever_their_type(broker, plain, topic):
    subscription = await broker.subscribe(topic, group="g")
    exchange = await plain.get_exchange("ketch")
    headers = {
        "cloudEvents:id": "7",
        "cloudEvents_source": "elsewhere",
        "cloudEvents:Retries": 3,
        "Number": -5,
        "Yes": True,
        "At": datetime(2026, 11, 23, 12, tzinfo=UTC),
        "Raw": bytearray(b"bytes"),
        "None": None,
        "Table": {"a": [1, "b"]},
    }
    await exchange.publish(aio_pika.Message(b"{}", headers=headers, content_type="application/json"), topic)
    (delivery,) = await take(subscription)
    assert dict(delivery.message.headers) == {
        "content-type": "application/json",
        "ce-id": "7",
        "ce-source": "elsewhere",
        "ce-retries": "3",
        "number": "-5",
        "yes": "true",
        "at": "2026-11-23T12:00:00Z",
        "raw": "bytes",
        "none": "",
        "table": '{"a": [1, "b"]}',
    }


async def test_an_event_put_into_the_queue_itself_has_the_queues_topic(broker, plain, topic):
    subscription = await broker.subscribe(topic, group="g")
    await plain.default_exchange.publish(aio_pika.Message(b"direct"), f"ketch/g/{topic}")
    (delivery,) = await take(subscription)
    assert (delivery.message.topic, delivery.message.body) == (topic, b"direct")


async def test_a_group_is_a_durable_quorum_queue_of_its_name(broker, plain, topic):
    await broker.declare(topic, group="go.micro.srv.email")
    queue = await plain.declare_queue(f"ketch/go.micro.srv.email/{topic}", passive=True)
    assert queue.declaration_result.consumer_count == 0


async def test_a_subscription_without_a_group_takes_its_queue_away(broker, topic):
    subscription = await broker.subscribe(topic, group=None)
    queue = subscription._source.queue
    assert await messages_in(broker, queue) == 0
    await subscription.close()
    with pytest.raises(Exception, match="no queue"):
        await messages_in(broker, queue)


# --- topics and patterns


async def test_one_or_more_words_are_not_none(broker, topic):
    subscription = await broker.subscribe(f"{topic}.>", group="g")
    for name in (topic, f"{topic}.a", f"{topic}.a.b"):
        await broker.publish(event(name))
    assert [delivery.message.topic for delivery in await take(subscription, 2)] == [f"{topic}.a", f"{topic}.a.b"]


async def test_a_word_that_is_rabbitmqs_wildcard_means_itself(broker, topic):
    subscription = await broker.subscribe(f"{topic}.#.z", group="g")
    for name in (f"{topic}.a.z", f"{topic}.#.z"):
        await broker.publish(event(name))
    assert [delivery.message.topic for delivery in await take(subscription)] == [f"{topic}.#.z"]
    await until(lambda: subscription._consumption._channel.unsettled == 0)


async def test_a_topic_over_255_bytes_is_refused_with_its_reason(broker):
    with pytest.raises(BrokerError, match="255"):
        await broker.publish(event("x" * 256))
    with pytest.raises(SubscriptionRefused, match="255"):
        await broker.subscribe("x" * 256, group="g")


async def test_a_long_topic_in_a_long_group_still_works(broker, topic):
    long = topic + ".x" * 110
    subscription = await broker.subscribe(long, group="g" * 200)
    await broker.publish(event(long))
    assert [delivery.message.topic for delivery in await take(subscription)] == [long]


async def test_headers_over_a_frame_are_refused_and_the_broker_goes_on(broker, topic):
    subscription = await broker.subscribe(topic, group="g")
    with pytest.raises(MessageTooLarge):
        await broker.publish(event(topic, long="x" * 200_000))
    await broker.publish(event(topic))
    assert len(await take(subscription)) == 1


async def test_the_servers_own_limit_refuses_one_event_and_no_other(broker, topic):
    subscription = await broker.subscribe(topic, group="g")
    sizes = [1000, 3_500_000, 2000, 3_000_001, 3_000_000]
    results = await asyncio.gather(*(broker.publish(event(topic, bytes(n))) for n in sizes), return_exceptions=True)
    assert [type(result) for result in results if result] == [MessageTooLarge, MessageTooLarge]
    with pytest.raises(MessageTooLarge, match="3000000"):
        await broker.publish(event(topic, bytes(3_100_000)))
    came = {len(delivery.message.body) for delivery in await take(subscription, 3)}
    assert came <= {1000, 2000, 3_000_000}


# --- refusals


async def test_wrong_credentials_are_an_error_that_does_not_show_them(server):
    url = server.url.replace("://", "://guest:s3cret@")
    broker = RabbitMQBroker.from_url(Url.parse(url))
    with pytest.raises(BrokerError, match="refuses our credentials") as caught:
        await broker.open(SITE)
    assert "s3cret" not in f"{caught.value!r}{broker.location}{broker._config!r}"


async def test_an_unknown_virtual_host_is_an_error_that_names_it(server):
    broker = RabbitMQBroker.from_url(Url.parse(f"{server.url}/nowhere"))
    with pytest.raises(BrokerError, match="nowhere"):
        await broker.open(SITE)


async def test_nobody_there_is_said_with_what_to_do():
    broker = RabbitMQBroker.from_url(Url.parse(f"rabbitmq://127.0.0.1:{free_port()}"))
    with pytest.raises(BrokerUnavailable, match="is it running"):
        await broker.open(SITE)


async def test_the_next_of_several_addresses_is_tried(server, topic):
    port = server.url.rpartition(":")[2]
    broker = RabbitMQBroker.from_url(Url.parse(f"rabbitmq://127.0.0.1:{free_port()},127.0.0.1:{port}"))
    await broker.open(SITE)
    await broker.publish(event(topic))
    await broker.close()


async def _say_nothing(reader, writer):
    await reader.read()
    await reader.read()
    writer.close()


async def test_a_server_that_says_nothing_is_given_up_in_time():
    silent = await asyncio.start_server(_say_nothing, "127.0.0.1", 0)
    async with silent:
        port = silent.sockets[0].getsockname()[1]
        broker = RabbitMQBroker.from_url(Url.parse(f"rabbitmq://127.0.0.1:{port}?connect_timeout=0.2"))
        with pytest.raises(BrokerUnavailable, match="no answer"):
            await broker.open(SITE)


async def test_a_queue_with_other_settings_is_refused_with_advice(server, broker, topic):
    await broker.declare(topic, group="g")
    async with opened(server, "delivery_limit=7") as other:
        with pytest.raises(SubscriptionRefused, match="delete it"):
            await other.subscribe(topic, group="g")


async def test_an_exchange_of_another_kind_is_refused_with_advice(server, plain):
    await plain.declare_exchange("fans", "fanout", durable=True)
    broker = RabbitMQBroker.from_url(Url.parse(f"{server.url}?exchange=fans"))
    with pytest.raises(BrokerError, match=r"\?exchange="):
        await broker.open(SITE)
    await plain.exchange_delete("fans")


# --- what must not kill a consumer


async def delete_queue(plain, subscription):
    """Delete it, and return when it is there again."""
    consumption = subscription._consumption
    channel = consumption._channel
    await plain.queue_delete(consumption._source.queue)
    await until(lambda: consumption._channel not in (channel, None))


async def test_a_queue_that_was_deleted_is_declared_again(broker, plain, topic):
    subscription = await broker.subscribe(topic, group="g")
    await delete_queue(plain, subscription)
    await broker.publish(event(topic))
    assert len(await take(subscription)) == 1


async def test_an_exchange_that_was_deleted_is_declared_again(broker, plain, topic):
    subscription = await broker.subscribe(topic, group="g")
    await plain.exchange_delete("ketch")
    await broker.publish(event(topic))  # nobody is bound any more, and nothing fails
    await delete_queue(plain, subscription)
    await broker.publish(event(topic))
    assert len(await take(subscription)) == 1


async def test_a_binding_that_was_taken_away_is_made_again(broker, plain, topic, monkeypatch):
    monkeypatch.setattr("ketch.brokers.rabbitmq.consumption._SILENCE", 0.05)
    subscription = await broker.subscribe(topic, group="g")
    queue = await plain.get_queue(f"ketch/g/{topic}")
    await queue.unbind("ketch", topic)
    heard = asyncio.create_task(take(subscription))
    while not heard.done():
        await broker.publish(event(topic))
        await asyncio.sleep(0.05)
    assert len(await heard) == 1


async def test_a_consumer_that_hears_nothing_while_events_wait_begins_anew(broker, topic, monkeypatch):
    monkeypatch.setattr("ketch.brokers.rabbitmq.consumption._SILENCE", 0.1)
    subscription = await broker.subscribe(topic, group="g")
    channel = subscription._consumption._channel
    await channel.call(_cancel(subscription), timeout=5)  # behind its back
    await broker.publish(event(topic))
    assert len(await take(subscription)) == 1
    assert subscription._consumption._channel is not channel


def _cancel(subscription):
    from pamqp.commands import Basic  # noqa: PLC0415 - for this alone

    return Basic.Cancel(f"ketch-{subscription._consumption._consumer}")


class Proxy:
    """Between broker and server; holds back what both say while `frozen`."""

    def __init__(self, port):
        self._port = port
        self._open = asyncio.Event()
        self._open.set()
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def freeze(self):
        self._open.clear()

    def thaw(self):
        self._open.set()

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await asyncio.gather(self._pump(reader, to_writer), self._pump(to_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            to_writer.close()

    async def _pump(self, reader, writer):
        while data := await reader.read(65536):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


async def test_a_connection_that_is_stuck_is_noticed_and_made_anew(server, topic):
    async with Proxy(int(server.url.rpartition(":")[2])) as proxy:
        url = f"rabbitmq://127.0.0.1:{proxy.port}?heartbeat=1&timeout=1&connect_timeout=1"
        broker = RabbitMQBroker.from_url(Url.parse(url))
        await broker.open(SITE)
        subscription = await broker.subscribe(topic, group="g")
        proxy.freeze()
        with pytest.raises(BrokerUnavailable):
            await broker.publish(event(topic, b"lost?"))
        await until(lambda: "silent" in broker.trouble or "lost" in broker.trouble)
        proxy.thaw()
        await until(lambda: not broker.trouble and not subscription.trouble)
        await broker.publish(event(topic, b"after"))
        bodies = []
        while b"after" not in bodies:
            bodies += [delivery.message.body for delivery in await take(subscription)]
        await broker.close()


# --- again, later, and never again


async def test_what_kills_its_processes_ends_with_the_dead_letters(server, topic):
    async with opened(server, "delivery_limit=2&exchange=poison") as broker:
        dead = await broker.subscribe(DEAD_LETTERS, group=DEAD_LETTERS)
        await broker.declare(topic, group="go.micro.srv.email")
        sent = event(topic, b"poison", tenant="bbc")
        await broker.publish(sent)
        for _ in range(3):
            subscription = await broker.subscribe(topic, group="go.micro.srv.email")
            await next_batch(subscription)
            await subscription.close()
        (letter,) = await take(dead)
        headers = dict(letter.message.headers)
        assert (letter.message.topic, letter.message.body) == (DEAD_LETTERS, b"poison")
        assert (headers["ketch-dead-topic"], headers["ketch-dead-group"]) == (topic, "go.micro.srv.email")
        assert letter.message.metadata == {"tenant": "bbc"}
        assert letter.message.id == sent.id


async def test_attempts_are_counted_through_queues_that_delay(broker, topic):
    subscription = await broker.subscribe(topic, group="g")
    await broker.publish(event(topic))
    attempts = []
    for later in (0.05, 0.0, 0.05, 0.0):
        (delivery,) = await next_batch(subscription)
        attempts.append(delivery.attempt)
        delivery.retry_after = later
        await subscription.settle([(delivery, Outcome.AGAIN)])
    (delivery,) = await take(subscription)
    assert [*attempts, delivery.attempt] == [1, 2, 3, 4, 5]
    assert (delivery.message.topic, delivery.message.metadata) == (topic, {})


async def test_a_short_delay_does_not_wait_for_a_long_one(broker, topic):
    subscription = await broker.subscribe(topic, group="g")
    for seconds in (3600, 1.0, 0.5, 0.1):
        await broker.publish(event(topic, str(seconds).encode()), delay=seconds)
    assert [delivery.message.body for delivery in await take(subscription, 3)] == [b"0.1", b"0.5", b"1.0"]


async def test_a_delayed_event_that_nobody_wants_leaves_its_queue(broker, topic):
    await broker.publish(event(topic), delay=0.15)
    await asyncio.sleep(0.3)
    for _ in range(100):
        if await messages_in(broker, "ketch.later.155") == 0:
            break
        await asyncio.sleep(0.05)
    assert await messages_in(broker, "ketch.later.155") == 0


async def test_without_a_group_attempts_are_counted_too(broker, topic):
    subscription = await broker.subscribe(topic, group=None)
    await broker.publish(event(topic))
    attempts = []
    for later in (0.0, 0.05):
        (delivery,) = await next_batch(subscription)
        attempts.append(delivery.attempt)
        delivery.retry_after = later
        await subscription.settle([(delivery, Outcome.AGAIN)])
    (delivery,) = await take(subscription)
    assert [*attempts, delivery.attempt] == [1, 2, 3]


async def test_what_is_in_hand_stays_within_the_prefetch_when_the_limit_changes(broker, topic):
    subscription = await broker.subscribe(topic, group="g", prefetch=8)
    for _ in range(40):
        await broker.publish(event(topic))
    held, taken = [], 0
    for limit in (2, 8, 1, 5, 8):
        await subscription.limit(limit)
        while len(held) < min(limit, 2) and taken < 40:
            batch = list(await next_batch(subscription))
            held += batch
            taken += len(batch)
            assert len(held) <= 8
        await subscription.settle([(delivery, Outcome.DONE) for delivery in held])
        held.clear()
    while taken < 40:
        taken += len(await take(subscription))


# --- the server itself


async def test_a_server_that_comes_back_empty_is_filled_again(server, broker, topic):
    subscription = await broker.subscribe(topic, group="g")
    alone = await broker.subscribe(topic, group=None)
    await server.kill()
    shutil.rmtree(server.folder / "mnesia")
    await server.start()
    await until(lambda: not (broker.trouble or subscription.trouble or alone.trouble))
    await broker.publish(event(topic))
    assert [len(await take(one)) for one in (subscription, alone)] == [1, 1]


async def test_tls_and_a_server_that_is_short_of_memory(topic, authority, tmp_path):
    """One server for both, for it takes seconds to start: it listens with TLS too, and blocks whoever publishes."""
    cert, key = authority.issue("server")
    port = free_port()
    config = f"""
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.cacertfile = {authority.root}
ssl_options.certfile = {cert}
ssl_options.keyfile = {key}
vm_memory_high_watermark.absolute = 1MB
"""
    async with running(config) as server:
        url = f"rabbitmq://127.0.0.1:{port}?tls_ca={authority.root}&timeout=1"
        broker = RabbitMQBroker.from_url(Url.parse(url))
        await broker.open(SITE)
        await broker.subscribe(topic, group="g")
        with contextlib.suppress(BrokerUnavailable):
            await broker.publish(event(topic))  # mostly it is read, and then the server reads no more
        await until(lambda: broker.trouble)
        with pytest.raises(BrokerUnavailable, match="memory"):
            await broker.publish(event(topic))
        assert "low on memory" in broker.trouble
        await broker.close()
        with pytest.raises(BrokerUnavailable, match="certificate"):
            await RabbitMQBroker.from_url(Url.parse(f"rabbitmq://127.0.0.1:{port}?tls=1")).open(SITE)
        assert server.url
