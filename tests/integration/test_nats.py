"""The NATS broker against real servers and plain clients."""

import asyncio
import base64
import json
import logging
from contextlib import asynccontextmanager

import nats
import pytest

from ketch.broker import Site
from ketch.brokers.nats import NatsBroker
from ketch.errors import BrokerError, BrokerUnavailable, ConfigurationError, MessageTooLarge, SubscriptionRefused
from ketch.message import Message, event_headers, stamp
from ketch.registries.memory import MemoryRegistry
from ketch.testing.servers import free_port, nats_server
from ketch.transports.memory import MemoryTransport
from ketch.url import Url

SHARED = event_headers(source="test", type="t.v1.T", content_type="application/protobuf")


def build(url):
    return NatsBroker.from_url(Url.parse(url))


@asynccontextmanager
async def opened(url):
    broker = build(url)
    await broker.open(Site("test", "test-1", MemoryRegistry("nats-test"), MemoryTransport("nats-test")))
    try:
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def plain(url):
    client = await nats.connect(url)
    try:
        yield client
    finally:
        await client.close()


def message(body, topic="user.created", **metadata):
    return Message(topic, stamp({**SHARED, **metadata}), body)


async def first(subscription):
    async with asyncio.timeout(20):
        (delivery, *_) = await subscription.receive()
    return delivery.message


async def test_a_plain_client_reads_our_events():
    async with nats_server() as server, plain(server.url) as client, opened(server.url) as broker:
        theirs = await client.subscribe("user.created")
        await client.flush()
        sent = message(b"\x0a\x01x", tenant="bbc")
        await broker.publish(sent)
        came = await theirs.next_msg(timeout=10)
        assert came.data == b"\x0a\x01x"
        assert came.headers == dict(sent.headers)


async def test_we_read_the_events_of_a_plain_client_with_headers_and_without():
    async with nats_server() as server, plain(server.url) as client, opened(server.url) as broker:
        subscription = await broker.subscribe("user.created", group="g")
        await client.publish("user.created", b"bare")
        came = await first(subscription)
        assert (came.body, dict(came.headers), came.id, came.content_type) == (b"bare", {}, "", "")
        await client.publish("user.created", b"named", headers={"Content-Type": "text/plain", "ce-id": "7"})
        came = await first(subscription)
        assert (came.body, came.id, came.content_type) == (b"named", "7", "text/plain")


async def test_go_micro_reads_our_envelope():
    async with nats_server() as server, plain(server.url) as client:
        theirs = await client.subscribe("user.created")
        await client.flush()
        async with opened(f"{server.url}?envelope=go-micro") as broker:
            sent = message(b"\x00\xff", tenant="a<b")
            await broker.publish(sent)
        came = await theirs.next_msg(timeout=10)
        assert came.headers is None
        envelope = json.loads(came.data)
        assert list(envelope) == ["Header", "Body"]
        assert base64.b64decode(envelope["Body"]) == b"\x00\xff"
        header = envelope["Header"]
        assert header["Content-Type"] == "application/protobuf"
        assert header["Micro-Topic"] == "user.created"
        assert header["Micro-Id"] == header["Micro-ID"] == sent.id
        assert header["tenant"] == "a<b"
        assert b"<" not in came.data


async def test_with_the_envelope_set_its_messages_and_native_ones_and_garbage_are_understood():
    envelope = {
        "Header": {"Content-Type": "application/json", "Micro-Id": "9", "Micro-Topic": "user.created"},
        "Body": base64.b64encode(b'{"name":"Ada"}').decode(),
    }
    async with (
        nats_server() as server,
        plain(server.url) as client,
        opened(f"{server.url}?envelope=go-micro") as broker,
    ):
        subscription = await broker.subscribe("user.created", group=None)
        await client.publish("user.created", json.dumps(envelope).encode())
        came = await first(subscription)
        assert (came.body, came.content_type, came.id) == (b'{"name":"Ada"}', "application/json", "9")
        for garbage in (b"\xff\x00", b'{"Header":', b'{"Header":{},"Body":"!"}', b"[]", b""):
            await client.publish("user.created", garbage)
            assert (await first(subscription)).body == garbage
        await client.publish("user.created", b"native", headers={"ce-id": "1"})
        came = await first(subscription)
        assert (came.body, came.id) == (b"native", "1")


async def test_subscriptions_go_on_after_the_server_was_killed_under_load():
    async with nats_server() as server, opened(server.url) as here, opened(server.url) as there:
        subscription = await there.subscribe("user.created", group="g")
        stop = asyncio.Event()

        async def load():
            count = 0
            while not stop.is_set():
                await here.publish(message(b"%d" % count))
                count += 1
                await asyncio.sleep(0)

        loading = asyncio.create_task(load())
        try:
            await first(subscription)
            await server.restart()
            await there.subscribe("probe", group=None)  # waits for a server that has both
            seen = int((await first(subscription)).body)
            async with asyncio.timeout(20):
                while int((await first(subscription)).body) <= seen + 5000:
                    pass
        finally:
            stop.set()
            await loading


async def test_publishing_while_the_server_is_away_is_an_error_within_the_timeout():
    async with nats_server() as server, opened(f"{server.url}?timeout=0.3") as broker:
        await broker.publish(message(b"x"))
        await server.kill()

        async def publish_on():
            while True:
                await broker.publish(message(b"x"))
                await asyncio.sleep(0.01)

        with pytest.raises(BrokerUnavailable, match=r"waited 0\.3 s"):
            await asyncio.wait_for(publish_on(), 20)


async def test_publishing_waits_for_a_server_that_comes_back():
    async with nats_server() as server, opened(f"{server.url}?timeout=20") as broker:
        subscription = await broker.subscribe("user.created", group=None)
        await server.kill()
        publishing = None
        async with asyncio.timeout(20):
            while publishing is None or publishing.done():
                publishing = asyncio.create_task(broker.publish(message(b"late")))
                await asyncio.wait({publishing}, timeout=0.05)
        await server.restart()
        await publishing
        assert (await first(subscription)).body == b"late"


async def test_a_server_that_is_not_there_is_named_without_the_password():
    port = free_port()
    with pytest.raises(BrokerUnavailable, match=rf"{port}.*is it running") as raised:
        async with opened(f"nats://ada:s3cret@127.0.0.1:{port}?connect_timeout=1"):
            pass
    assert "s3cret" not in str(raised.value)


async def test_a_silent_port_is_unavailable_within_the_connect_timeout():
    async def silence(_reader, writer):
        hung.append(writer)

    hung = []
    silent = await asyncio.start_server(silence, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    try:
        with pytest.raises(BrokerUnavailable):
            async with opened(f"nats://127.0.0.1:{port}?connect_timeout=0.5"):
                pass
    finally:
        for writer in hung:
            writer.close()
        silent.close()
        await silent.wait_closed()


USERS = """
authorization { users: [
  { user: ada, password: "s3cret", permissions: { publish: ["user.>", "_INBOX.>"], subscribe: ["user.>", "_INBOX.>"] } }
] }
"""


async def test_user_and_password_let_us_in_and_wrong_ones_do_not(caplog):
    caplog.set_level(logging.DEBUG)
    async with nats_server(config=USERS) as server:
        address = server.url.removeprefix("nats://")
        async with opened(f"nats://ada:s3cret@{address}") as broker:
            subscription = await broker.subscribe("user.created", group=None)
            await broker.publish(message(b"x"))
            assert (await first(subscription)).body == b"x"
        for wrong in ("ada:wr0ng@", ""):
            with pytest.raises(BrokerError, match="refuses our credentials"):
                async with opened(f"nats://{wrong}{address}"):
                    pass
    assert "s3cret" not in caplog.text
    assert "wr0ng" not in caplog.text


async def test_a_token_lets_us_in():
    config = 'authorization { token: "t0ken" }'
    async with nats_server(config=config) as server, opened(server.url.replace("://", "://t0ken@")) as broker:
        assert "t0ken" not in broker.location


@pytest.mark.parametrize("group", ["g", None])
async def test_a_subscription_that_is_not_permitted_is_refused(group):
    async with nats_server(config=USERS) as server, opened(server.url.replace("://", "://ada:s3cret@")) as broker:
        with pytest.raises(SubscriptionRefused, match=r"secret\.topic"):
            await broker.subscribe("secret.topic", group=group)
        await broker.subscribe("user.created", group=group)


async def test_the_server_s_own_limit_counts():
    async with nats_server(config="max_payload: 2048") as server, opened(server.url) as broker:
        subscription = await broker.subscribe("user.created", group=None)
        with pytest.raises(MessageTooLarge, match="2048"):
            await broker.publish(message(bytes(2048)))
        await broker.publish(message(bytes(1000)))
        assert len((await first(subscription)).body) == 1000


@pytest.mark.parametrize(
    "options",
    ["envelope=xml", "timeout=soon", "tls_cert=c.pem", "tls_ca=/nowhere/ca.pem", "stream=shop"],
)
def test_a_wrong_option_is_refused(options):
    with pytest.raises(ConfigurationError):
        build(f"nats://127.0.0.1?{options}")


@pytest.mark.parametrize("topic", ["", "a b", "a..b", "a.\r\nPUB x 0"])
async def test_a_topic_that_is_no_subject_is_refused_and_the_connection_stays(topic):
    async with nats_server() as server, opened(server.url) as broker:
        with pytest.raises(SubscriptionRefused):
            await broker.subscribe(topic, group=None)
        with pytest.raises(BrokerError):
            await broker.publish(message(b"x", topic))
        subscription = await broker.subscribe("user.created", group=None)
        await broker.publish(message(b"x"))
        assert (await first(subscription)).body == b"x"
