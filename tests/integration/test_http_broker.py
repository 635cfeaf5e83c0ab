"""go-micro's broker `http` on the wire: what a Go process sends, and what it gets."""

import asyncio
import json

import pytest

from ketch.broker import Site
from ketch.brokers.http import HttpBroker
from ketch.errors import BrokerError, ConfigurationError
from ketch.message import CONTENT_TYPE, Message
from ketch.registries.memory import MemoryRegistry
from ketch.registry import Instance
from ketch.tls import ClientTls, Tls
from ketch.transports.grpc import GrpcTransport
from ketch.transports.memory import MemoryTransport
from ketch.url import Url

SERVICE = "micro.http.broker"
EVENT = b'{"Header":{"Content-Type":"application/grpc+proto","Micro-Topic":"user.created"},"Body":"CgU8QWRhPhAH"}'


@pytest.fixture
async def registry():
    async with MemoryRegistry.from_url(Url("memory")) as registry:
        yield registry


@pytest.fixture
async def broker(registry):
    broker = HttpBroker.from_url(Url("http"))
    await broker.open(Site("shop", "1", registry, MemoryTransport.from_url(Url("memory"))))
    yield broker
    await broker.close()


async def registered(registry):
    async for snapshot in registry.watch(SERVICE):
        return snapshot
    raise AssertionError


async def talk(address, request):
    """Return the answer's first line."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    line = await reader.readline()
    writer.close()
    return line


def post(target, body, *more):
    lines = [f"POST {target} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *more, "", ""]
    return "\r\n".join(lines).encode() + body


async def test_a_subscription_is_in_the_registry_as_go_micro_looks_for_it(broker, registry):
    await broker.subscribe("user.created", group="mail")
    await broker.subscribe("user.created", group=None)
    found = {one.version: one for one in await registered(registry)}
    assert set(found) == {"mail", "ff.http.broadcast"}
    assert found["mail"].id.startswith("user.created-")
    assert {"broker": "http", "topic": "user.created", "secure": "false"}.items() <= found["mail"].metadata.items()


async def test_what_go_posts_is_received(broker, registry):
    subscription = await broker.subscribe("user.created", group=None)
    (found,) = await registered(registry)
    assert await talk(found.address, post(f"/?id={found.id}", EVENT)) == b"HTTP/1.1 200 OK\r\n"
    (delivery,) = await subscription.receive()
    message = delivery.message
    assert (message.topic, message.content_type, message.body) == (
        "user.created",
        "application/grpc+proto",
        b"\n\x05<Ada>\x10\x07",
    )


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post("/?id=somebody-else", EVENT), b"200"),
        (post("/", EVENT), b"200"),
        (b"GET / HTTP/1.1\r\n\r\n", b"405"),
        (b"POST / HTTP/1.1\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n", b"413"),
        (b"hello\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nno header\r\n\r\n", b""),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b""),
        (b"x" * 100_000, b""),
    ],
)
async def test_other_requests_are_answered_or_hung_up_on_and_it_goes_on(broker, registry, request_, status):
    subscription = await broker.subscribe("user.created", group=None)
    (found,) = await registered(registry)
    assert status in await talk(found.address, request_)
    assert await talk(found.address, post(f"/?id={found.id}", b"[]")) == b"HTTP/1.1 400 Bad Request\r\n"
    await talk(found.address, post(f"/?id={found.id}", EVENT))
    assert len(await subscription.receive()) == 1


async def test_what_is_published_is_a_post_that_go_micro_takes(broker, registry):
    """The server answers as Go's does."""
    came = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        came.set_result((head, await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 17:49:41 GMT\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    labels = {"broker": "http", "topic": "user.created", "secure": "false"}
    await registry.register(Instance(SERVICE, "user.created-1 2", f"{host}:{port}", "ff.http.broadcast", (), labels))
    secure = {**labels, "secure": "true"}
    await registry.register(Instance(SERVICE, "user.created-3", f"{host}:{port}", "ff.http.broadcast", (), secure))
    await broker.publish(Message("user.created", {CONTENT_TYPE: "application/protobuf"}, b"\x00\xff"))
    head, body = await asyncio.wait_for(came, 10)
    assert head.startswith(b"POST /?id=user.created-1+2 HTTP/1.1\r\n")
    assert json.loads(body) == {
        "Header": {"Content-Type": "application/protobuf", "Micro-Topic": "user.created"},
        "Body": "AP8=",
    }
    await broker.close()
    server.close()
    await server.wait_closed()


async def test_a_process_that_comes_later_gets_what_waited_for_it(broker, registry, unused_tcp_port):
    labels = {"broker": "http", "topic": "user.created", "secure": "false"}
    there = Instance(SERVICE, "user.created-1", f"127.0.0.1:{unused_tcp_port}", "ff.http.broadcast", (), labels)
    await registry.register(there)
    for body in (b"one", b"two"):
        await broker.publish(Message("user.created", {}, body))
    came = asyncio.Queue()

    async def serve(reader, writer):
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await came.put(json.loads(await reader.readexactly(length))["Body"])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", unused_tcp_port):
        assert [await asyncio.wait_for(came.get(), 10) for _ in range(2)] == ["b25l", "dHdv"]


async def test_events_do_not_leave_in_plain_text_where_calls_are_encrypted(registry):
    transport = GrpcTransport(tls=Tls(client=ClientTls("ca.pem")))
    with pytest.raises(BrokerError, match="plain text"):
        await HttpBroker.from_url(Url("http")).open(Site("shop", "1", registry, transport))


@pytest.mark.parametrize("url", ["http://127.0.0.1", "http://127.0.0.1:99999", "http://127.0.0.1:1?timeout=1"])
def test_a_wrong_url_is_refused(url):
    with pytest.raises(ConfigurationError):
        HttpBroker.from_url(Url.parse(url))
