"""Redis pub/sub against real servers and plain clients."""

import asyncio
import base64
import contextlib
import json
import logging
import signal
import ssl
from contextlib import asynccontextmanager

import pytest
import redis.asyncio as plain_redis

from ketch.broker import Site
from ketch.brokers.redis import RedisBroker
from ketch.errors import BrokerError, BrokerUnavailable, ConfigurationError, SubscriptionRefused
from ketch.message import Message, event_headers, stamp
from ketch.registries.memory import MemoryRegistry
from ketch.testing.servers import free_port, redis_server
from ketch.transports.memory import MemoryTransport
from ketch.url import Url

pytestmark = pytest.mark.xdist_group("redis")

SHARED = event_headers(source="test", type="t.v1.T", content_type="application/protobuf")


def build(url):
    return RedisBroker.from_url(Url.parse(url))


@asynccontextmanager
async def opened(url):
    broker = build(url)
    await broker.open(Site("test", "test-1", MemoryRegistry("redis-test"), MemoryTransport("redis-test")))
    try:
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def plain(url):
    client = plain_redis.from_url(url)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def heard_on(url, channel):
    """Give a function that returns what a plain client hears next."""
    async with plain(url) as client, client.pubsub(ignore_subscribe_messages=True) as listener:
        await listener.subscribe(channel)
        await listener.get_message(timeout=5)

        async def hear():
            async with asyncio.timeout(20):
                while (found := await listener.get_message(timeout=1)) is None:
                    pass
            return found["data"]

        yield hear


async def until(true):
    """Wait until a coroutine function's answer is yes."""
    async with asyncio.timeout(20):
        while not await true():  # noqa: ASYNC110 - a server's state comes without an event of ours
            await asyncio.sleep(0.02)


def message(body, topic="user.created", **headers):
    return Message(topic, stamp({**SHARED, **headers}), body)


async def first(subscription):
    async with asyncio.timeout(20):
        (delivery, *_) = await subscription.receive()
    return delivery.message


async def publish_for_ever(broker):
    async with asyncio.timeout(20):
        while True:
            await broker.publish(message(b"x"))
            await asyncio.sleep(0.01)


# --- on the wire


async def test_a_plain_client_reads_our_events_as_cloudevents():
    sent = message(b"\x00\xff", **{"x-tenant": "bbc & co", "ce-subject": "s"})
    async with redis_server() as server, heard_on(server.url, "user.created") as hear, opened(server.url) as broker:
        await broker.publish(sent)
        event = json.loads(await hear())
    assert event == {
        "specversion": "1.0",
        "id": sent.id,
        "source": "test",
        "type": "t.v1.T",
        "time": sent.time,
        "datacontenttype": "application/protobuf",
        "ketchmetadata": "x-tenant=bbc+%26+co&ce-subject=s",
        "data_base64": base64.b64encode(b"\x00\xff").decode(),
    }


async def test_a_json_body_stands_in_the_event_as_it_is():
    sent = message(b'{"name": "Ada"}', **{"content-type": "application/json"})
    async with redis_server() as server, heard_on(server.url, "user.created") as hear, opened(server.url) as broker:
        ours = await broker.subscribe("user.created", group=None)
        await broker.publish(sent)
        assert json.loads(await hear())["data"] == {"name": "Ada"}
        assert (await first(ours)).body == sent.body


@pytest.mark.parametrize(
    "body", [b"", b" {}", b"{} ", b"{", b"{}{}", b"[1,", b"nonsense", b"\xff", b'{"a":1', b"[" * 3000, b"NaN"]
)
async def test_a_body_that_claims_to_be_json_arrives_byte_for_byte(body):
    sent = message(body, **{"content-type": "application/json"})
    from ketch.brokers.redis.envelope import unwrap, wrap  # noqa: PLC0415 - the pair is the subject here alone

    assert unwrap("t", wrap(sent)).body == body


@pytest.mark.parametrize("headers", [{}, {"tenant": "bbc"}, {"ce-id": ""}, {"content-type": ""}])
@pytest.mark.parametrize("body", [b"", b"plain", b'{"specversion": "1.0"}', b"{"])
async def test_headers_that_make_no_event_arrive_as_they_are(headers, body):
    from ketch.brokers.redis.envelope import unwrap, wrap  # noqa: PLC0415 - as above

    came = unwrap("t", wrap(Message("t", headers, body)))
    assert (dict(came.headers), came.body) == (headers, body)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"hello",
        b"\x00\x01",
        b'{"name": "Ada"}',
        b"{",
        b'{"specversion": 1}',
        b"[]",
        b'{"specversion":"1.0","id":[]}',
    ],
)
async def test_what_is_no_event_is_the_body_of_one(payload):
    async with redis_server() as server, plain(server.url) as client, opened(server.url) as broker:
        ours = await broker.subscribe("user.created", group=None)
        await client.publish("user.created", payload)
        came = await first(ours)
    assert (came.topic, dict(came.headers), came.body) == ("user.created", {}, payload)


async def test_an_event_of_another_library_arrives_with_its_extensions():
    event = {
        "specversion": "1.0",
        "id": "7",
        "source": "/there",
        "type": "t",
        "datacontenttype": "text/plain",
        "partitionkey": "ü",
        "traceparent": "00-…",
        "sampled": True,
        "count": 3,
        "nothing": None,
        "data": "größe",
    }
    async with redis_server() as server, plain(server.url) as client, opened(server.url) as broker:
        ours = await broker.subscribe("user.created", group=None)
        await client.publish("user.created", json.dumps(event))
        came = await first(ours)
    assert came.body == "größe".encode()
    assert (came.id, came.source, came.type, came.key, came.content_type) == ("7", "/there", "t", "ü", "text/plain")
    extensions = {name: value for name, value in came.headers.items() if name in ("ce-sampled", "ce-count")}
    assert extensions == {"ce-sampled": "true", "ce-count": "3"}
    assert "ce-nothing" not in came.headers


async def test_a_star_is_one_word_and_other_signs_are_themselves():
    async with redis_server() as server, opened(server.url) as broker:
        one = await broker.subscribe("a.*.[c]?", group=None)
        tail = await broker.subscribe("a.>", group=None)
        for topic in ("a.b.[c]?", "a.b.b.[c]?", "a.b.cx", "a.b", "a", "ab.c"):
            await broker.publish(message(b"x", topic))
        await broker.publish(message(b"end", "a.end.[c]?"))
        assert [m.topic for m in await until_end(one)] == ["a.b.[c]?", "a.end.[c]?"]
        assert [m.topic for m in await until_end(tail)] == ["a.b.[c]?", "a.b.b.[c]?", "a.b.cx", "a.b", "a.end.[c]?"]


async def until_end(subscription):
    found = []
    async with asyncio.timeout(20):
        while not found or found[-1].body != b"end":
            found += [delivery.message for delivery in await subscription.receive()]
    return found


# --- options and login


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("redis://a:1,b:2", "one server"),
        ("redis://a:none", "no host:port"),
        ("redis://a/x", "database"),
        ("redis://secret@a", "password alone"),
        ("redis://a?timeout=0", "timeout"),
        ("redis://a?tls_cert=x", "come together"),
        ("redis://a?tls_ca=/nowhere", "TLS files"),
        ("redis://a?keep=1", "no option 'keep'"),
    ],
)
def test_a_wrong_url_is_refused(url, what):
    with pytest.raises(ConfigurationError, match=what) as caught:
        build(url)
    assert "secret" not in str(caught.value)


def test_ipv6_and_defaults():
    assert build("redis").location == "127.0.0.1:6379"
    assert build("redis://[::1]:7/2").location == "[::1]:7/2"


async def test_nobody_there_says_what_to_do():
    with pytest.raises(BrokerUnavailable, match="is it running"):
        async with opened(f"redis://127.0.0.1:{free_port()}"):
            pass


async def test_one_that_is_silent_is_not_waited_for_longer_than_told():
    async with answering(b"") as port:
        with pytest.raises(BrokerUnavailable, match="no answer"):
            async with opened(f"redis://127.0.0.1:{port}?connect_timeout=0.2"):
                pass


async def test_one_that_speaks_something_else_is_told():
    async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        with pytest.raises(BrokerUnavailable, match="doesn't speak"):
            async with opened(f"redis://127.0.0.1:{port}"):
                pass


@asynccontextmanager
async def answering(words):
    """Listen, say something, and take whatever comes; give the port."""
    ended = asyncio.Event()

    async def answer(reader, writer):
        writer.write(words)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        ended.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        async with asyncio.timeout(20):
            await ended.wait()


@pytest.mark.parametrize("login", ["", ":wr0ng@", "ada:wr0ng@"])
async def test_refused_credentials_are_not_shown(login):
    async with redis_server(options=["--requirepass", "s3cret"]) as server:
        with pytest.raises(BrokerError, match="refuses our credentials") as caught:
            async with opened(server.url.replace("://", f"://{login}")):
                pass
        assert not isinstance(caught.value, BrokerUnavailable)
        assert "wr0ng" not in str(caught.value)
        async with opened(server.url.replace("://", "://:s3cret@")) as broker:
            assert "s3cret" not in broker.location
            await broker.publish(message(b"x"))


async def test_what_a_user_may_not_do_is_said():
    user = "ada on >pw +@all -@dangerous resetchannels &allowed.*"
    async with (
        redis_server(options=["--user", *user.split()]) as server,
        opened(server.url.replace("://", "://ada:pw@")) as broker,
    ):
        with pytest.raises(SubscriptionRefused, match="NOPERM"):
            await broker.subscribe("secret", group=None)
        with pytest.raises(BrokerError, match="NOPERM"):
            await broker.publish(message(b"x", "secret"))
        subscription = await broker.subscribe("allowed.x", group=None)
        await broker.publish(message(b"y", "allowed.x"))
        assert (await first(subscription)).body == b"y"


async def test_a_right_that_is_taken_away_is_logged_and_then_raised(caplog):
    async with redis_server() as server, plain(server.url) as client:
        await client.acl_setuser("ada", enabled=True, passwords=["+pw"], commands=["+@all"], channels=["*"])
        async with opened(server.url.replace("://", "://ada:pw@")) as broker:
            await broker.publish(message(b"x"))
            await client.acl_setuser("ada", commands=["-publish"])
            with caplog.at_level(logging.ERROR, "ketch.broker"), pytest.raises(BrokerError, match="NOPERM"):
                await publish_for_ever(broker)
    assert "NOPERM" in caplog.text


async def test_groups_are_refused():
    async with redis_server() as server, opened(server.url) as broker:
        with pytest.raises(SubscriptionRefused, match="redis-streams"):
            await broker.subscribe("t", group="g")


async def test_it_speaks_tls(authority):
    cert, key = authority.issue("server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    async with redis_server() as server, tunnel(server.url, context) as port:
        async with opened(f"redis://127.0.0.1:{port}?tls_ca={authority.root}") as broker:
            subscription = await broker.subscribe("t", group=None)
            await broker.publish(message(b"secret", "t"))
            assert (await first(subscription)).body == b"secret"
        with pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            async with opened(f"redis://127.0.0.1:{port}?tls=1"):
                pass


@asynccontextmanager
async def tunnel(url, context):
    """Serve TLS in front of a server; the wheel's is built without."""
    target = int(url.rpartition(":")[2])

    async def copy(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def forward(reader, writer):
        theirs, ours = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(copy(reader, ours), copy(theirs, writer), return_exceptions=True)

    front = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)
    async with front:
        yield front.sockets[0].getsockname()[1]


# --- outages


async def test_a_server_that_hangs_is_left_and_found_again():
    async with redis_server() as server, opened(f"{server.url}?timeout=0.4") as broker:
        subscription = await broker.subscribe("user.created", group=None)
        await broker.publish(message(b"before"))
        server._process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(BrokerUnavailable):
                await publish_for_ever(broker)
            assert broker.trouble
        finally:
            server._process.send_signal(signal.SIGCONT)

        async def well():
            return not broker.trouble

        await until(well)
        await broker.publish(message(b"end"))
        assert (await until_end(subscription))[-1].body == b"end"


async def test_a_connection_that_is_cut_subscribes_again(caplog):
    async with redis_server() as server, plain(server.url) as client, opened(server.url) as broker:
        exact = await broker.subscribe("a.b", group=None)
        pattern = await broker.subscribe("a.*", group=None)
        with caplog.at_level(logging.WARNING, "ketch.broker"):
            await client.client_kill_filter(_type="pubsub", skipme=True)

            async def both():
                return await client.publish("a.b", b"end") == 2  # ours twice: by name and by pattern

            await until(both)
        for subscription in (exact, pattern):
            assert (await until_end(subscription))[-1].topic == "a.b"


async def test_many_leave_one_channel_at_the_same_time():
    async with redis_server() as server, plain(server.url) as client, opened(server.url) as broker:
        subscriptions = [await broker.subscribe("t", group=None) for _ in range(5)]
        assert await client.publish("t", b"x") == 1
        await asyncio.gather(*(subscription.close() for subscription in subscriptions))
        assert await client.publish("t", b"x") == 0
