"""What is NSQ's own: the wire as plain clients see it, names, several nsqds, refusals, shared commands."""

import asyncio
import base64
import contextlib
import json
import struct
from uuid import uuid4

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from ketch.broker import Outcome, Site
from ketch.brokers.nsq import NsqBroker
from ketch.brokers.nsq.envelope import MAX_BODY, unwrap, wrap
from ketch.brokers.nsq.names import channel_name, nsq_name
from ketch.brokers.nsq.protocol import Frames
from ketch.errors import BrokerError, BrokerUnavailable, ConfigurationError, MessageTooLarge
from ketch.message import Message, event_headers, stamp
from ketch.registries.memory import MemoryRegistry
from ketch.testing.servers import free_port
from ketch.testing.servers.nsq import nsq_server
from ketch.transports.memory import MemoryTransport
from ketch.url import Url

pytestmark = pytest.mark.xdist_group("nsq")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    async with nsq_server() as server:
        yield server


def site():
    return Site("test", "1", MemoryRegistry.from_url(Url("memory")), MemoryTransport.from_url(Url("memory")))


@pytest.fixture
async def make(server):
    async with contextlib.AsyncExitStack() as stack:

        async def make(url=f"{server.url}?timeout=2"):
            broker = NsqBroker.from_url(Url.parse(url))
            stack.push_async_callback(broker.close)
            await broker.open(site())
            return broker

        yield make


class Plain:
    """A client that knows nothing of ketch: bytes over a socket."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    async def say(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def hear(self):
        async with asyncio.timeout(10):
            size, kind = struct.unpack(">Ii", await self.reader.readexactly(8))
            return kind, await self.reader.readexactly(size - 4)


@pytest.fixture
async def plain(server):
    host, port = server.url.removeprefix("nsq://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    client = Plain(reader, writer)
    await client.say(b"  V2")
    yield client
    writer.close()


@pytest.fixture
def topic():
    return f"orders.{uuid4().hex[:12]}"


def event(topic, body=b"x", content_type="application/protobuf", **metadata):
    shared = event_headers(source="shop", type="shop.v1.Order", content_type=content_type)
    return Message(topic, stamp({**shared, **metadata}), body)


async def take(subscription):
    async with asyncio.timeout(10):
        (delivery,) = await subscription.receive()
    return delivery


async def take_bodies(subscription, count):
    bodies = set()
    async with asyncio.timeout(10):
        while len(bodies) < count:
            bodies.update(delivery.message.body for delivery in await subscription.receive())
    return bodies


async def until(true):
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.01)


async def test_a_plain_client_reads_an_event_as_a_cloudevents_document(make, plain, topic):
    broker = await make()
    await broker.declare(topic, group="audit")
    sent = event(topic, b"\x00\x01", tenant="bbc", **{"ce-partitionkey": "user-7"})
    await broker.publish(sent)
    await plain.say(f"SUB {topic} audit\nRDY 1\n".encode())
    assert await plain.hear() == (0, b"OK")
    kind, data = await plain.hear()
    assert kind == 2
    document = json.loads(data[26:])
    assert base64.b64decode(document.pop("data_base64")) == b"\x00\x01"
    assert document == {
        "specversion": "1.0",
        "id": sent.id,
        "source": "shop",
        "type": "shop.v1.Order",
        "time": sent.time,
        "datacontenttype": "application/protobuf",
        "partitionkey": "user-7",
        "ketchheaders": '{"tenant":"bbc"}',
    }


@pytest.mark.parametrize(
    "body", [b"bare", b"{}", b'{"specversion": 1', b'"specversion"', b"\xff\x00", b'{"a":"specversion"}']
)
async def test_a_plain_clients_bare_body_comes_through(make, plain, topic, body):
    broker = await make()
    subscription = await broker.subscribe(topic, group="g")
    await plain.say(f"PUB {topic}\n".encode() + struct.pack(">I", len(body)) + body)
    assert await plain.hear() == (0, b"OK")
    message = (await take(subscription)).message
    assert (message.topic, dict(message.headers), message.body) == (topic, {}, body)


async def test_a_plain_clients_cloudevents_document_comes_through(make, plain, topic):
    broker = await make()
    subscription = await broker.subscribe(topic, group="g")
    body = b'{ "type": "t", "id": "1", "source": "s", "specversion": "1.0", "count": 3, "data": {"a":  1} }'
    await plain.say(f"PUB {topic}\n".encode() + struct.pack(">I", len(body)) + body)
    message = (await take(subscription)).message
    assert message.body == b'{"a":  1}'
    assert dict(message.headers) == {
        "ce-type": "t",
        "ce-id": "1",
        "ce-source": "s",
        "ce-specversion": "1.0",
        "ce-count": "3",
    }


async def test_many_events_published_at_once_share_commands(make, topic, monkeypatch):
    broker = await make()
    connection = broker._publishing._connection
    commands = []
    ask = connection.ask
    monkeypatch.setattr(connection, "ask", lambda command, answered: (commands.append(command), ask(command, answered)))
    await asyncio.gather(*(broker.publish(event(topic)) for _ in range(2500)))
    assert [command.partition(b" ")[0] for command in commands] == [b"MPUB", b"MPUB", b"MPUB"]


async def test_one_that_nsqd_does_not_take_leaves_the_others_alone(make, topic, monkeypatch):
    """The nsqd's own limit may be lower than the default, and it refuses a command as a whole."""
    monkeypatch.setattr("ketch.brokers.nsq.envelope.MAX_BODY", 2_000_000)
    monkeypatch.setattr("ketch.brokers.nsq.envelope.MAX_MESSAGE", 2_000_000)
    broker = await make()
    subscription = await broker.subscribe(topic, group="g")
    bodies = [b"a", bytes(1_100_000), b"b"]
    results = await asyncio.gather(*(broker.publish(event(topic, body)) for body in bodies), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), BrokerError, type(None)]
    assert await take_bodies(subscription, 2) == {b"a", b"b"}


async def test_several_nsqds_are_all_subscribed_to(make, server, topic):
    async with nsq_server() as other:
        subscriber = await make(f"{server.url},{other.url.removeprefix('nsq://')}")
        subscription = await subscriber.subscribe(topic, group="g")
        for url in (server.url, other.url):
            await (await make(url)).publish(event(topic, url.encode()))
        assert await take_bodies(subscription, 2) == {server.url.encode(), other.url.encode()}
        await other.kill()
        await until(lambda: subscription.trouble)
        await subscriber.publish(event(topic, b"on"))
        assert (await take(subscription)).message.body == b"on"


async def test_what_was_held_over_a_lost_connection_is_settled_when_it_comes_again(make, server, topic):
    """NSQ delivers it once more, to the same member: that is the one in hand, not a second one."""
    broker = await make(f"{server.url}?timeout=2&msg_timeout=0.5")
    subscription = await broker.subscribe(topic, group="g")
    await broker.publish(event(topic, b"x"))
    delivery = await take(subscription)
    before = delivery.raw
    subscription._links[0].connection.abort("a test cut it")
    await until(lambda: delivery.raw != before)
    await subscription.settle([(delivery, Outcome.DONE)])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await subscription.receive()


async def test_a_server_that_is_silent_counts_as_gone(make):
    """No heartbeat, no answer: the connection is given up, and the publisher told in time."""
    heard = asyncio.Event()

    async def connected(reader, writer):
        await reader.readuntil(b"IDENTIFY\n")
        writer.write(struct.pack(">Ii", 6, 0) + b"OK")
        await reader.read(-1)
        heard.set()
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        broker = await make(f"nsq://127.0.0.1:{port}?timeout=0.2&heartbeat=1")
        with pytest.raises(BrokerUnavailable, match="no confirmation"):
            await broker.publish(event("t"))
        async with asyncio.timeout(10):
            await heard.wait()
        await broker.close()


async def test_a_server_that_is_not_there_is_named():
    broker = NsqBroker.from_url(Url.parse(f"nsq://hunter2@127.0.0.1:{free_port()}"))
    with pytest.raises(BrokerUnavailable, match="is nsqd running") as error:
        await broker.open(site())
    assert "hunter2" not in str(error.value) + broker.location


async def test_what_is_no_nsqd_is_told_so():
    async def connected(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read(-1)
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(BrokerError, match="TCP port"):
            await NsqBroker.from_url(Url.parse(f"nsq://127.0.0.1:{port}")).open(site())


def test_frames_may_be_cut_anywhere():
    data = b"".join(struct.pack(">Ii", len(body) + 4, 2) + body for body in (b"", b"a", b"b" * 1000))
    for step in (1, 2, 7, 1008):
        frames = Frames()
        found = [frame for at in range(0, len(data), step) for frame in frames.feed(data[at : at + step])]
        assert found == [(2, b""), (2, b"a"), (2, b"b" * 1000)]


@pytest.mark.parametrize("body", [b'{"a": 1}', b"[1,2]", b'"x"', b' {"a":1}', b"not json", b"\xff", b"", b"1", b"{}{}"])
@pytest.mark.parametrize("content_type", ["application/json", "application/protobuf", "text/plain"])
def test_every_body_is_the_same_afterwards(body, content_type):
    sent = event("t", body, content_type, plain="1", **{"ce-data": "2", "ce-x-y": "3", "x.y": ""})
    came = unwrap("t", wrap(sent))
    assert (dict(came.headers), came.body) == (dict(sent.headers), body)


def test_json_stays_readable():
    assert json.loads(wrap(event("t", b'{"a": 1}', "application/json")))["data"] == {"a": 1}


def test_the_largest_body_fits_into_nsqds_limit():
    assert len(wrap(event("t", bytes(MAX_BODY)))) <= 1024 * 1024
    with pytest.raises(MessageTooLarge):
        wrap(event("t", bytes(MAX_BODY), long="v" * 20_000))


def test_names_never_collide_and_fit():
    names = ["a", "a b", "a_b", "a/b", "ü", "", "x" * 64, "x" * 65, "x" * 66, "t#ephemeral"]
    names.append(nsq_name("a b"))
    found = [nsq_name(name) for name in names]
    assert len(set(found)) == len(names)
    assert all(1 <= len(name) <= 64 and "#" not in name for name in found)
    assert found[0] == "a"
    assert channel_name(None) != channel_name(None)


@pytest.mark.parametrize(
    "data",
    [
        b'{"specversion":"1.0","id":"1","data":{"a":1,"data_base64":"QQ=="},"x":"y"}',
        b'{"specversion":"1.0","id":"1","data_base64":"QQ==","x":"y"}',
        b'{"specversion":"1.0","id":"1","x":",\\"data_base64\\":\\"","data_base64":"QQ=="}',
        b'{"specversion":"1.0","n":2,"id":"1","data_base64":"QQ=="}',
        b'{"specversion":"1.0","id":"1","id":"2","data_base64":"QQ=="}',
        b'{"specversion":"1.0" and no JSON,"id":"1","data_base64":"QQ=="}',
        b'{"specversion":"1.0","id":"1","data_base64":"no base64!"}',
    ],
)
def test_the_fast_way_of_reading_reads_what_the_slow_one_does(data, monkeypatch):
    fast = unwrap("t", data)
    monkeypatch.setattr("ketch.brokers.nsq.envelope._unwrap_plain", lambda *_: None)
    slow = unwrap("t", data)
    assert (dict(fast.headers), fast.body) == (dict(slow.headers), slow.body)


def test_the_fast_way_of_writing_writes_what_the_slow_one_does(monkeypatch):
    message = event("t", b"\x00\xff")
    fast = wrap(message)
    monkeypatch.setattr("ketch.brokers.nsq.envelope._wrap_plain", lambda _: b"")
    assert json.loads(fast) == json.loads(wrap(message))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
)
_NAMES = st.sampled_from(["data", "data_base64", "datacontenttype", "ketchheaders", "id", "Id", "time"]) | st.text()


@given(st.dictionaries(_NAMES, _JSON))
def test_whatever_a_document_holds_it_is_an_event_or_a_bare_body(document):
    data = json.dumps({"specversion": "1.0", **document}).encode()
    message = unwrap("t", data)
    assert isinstance(message.body, bytes)
    assert all(isinstance(text, str) for item in message.headers.items() for text in item)
    assert message.headers or message.body == data


def test_a_document_that_is_too_deep_is_a_bare_body():
    data = b'{"specversion":"1.0","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert unwrap("t", data).body == data


@pytest.mark.parametrize("options", ["?msg_timeout=0", "?heartbeat=0.5", "?tls_cert=x", "?nope=1"])
def test_a_wrong_option_is_refused(options):
    with pytest.raises(ConfigurationError):
        NsqBroker.from_url(Url.parse(f"nsq://127.0.0.1{options}"))
