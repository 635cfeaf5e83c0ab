"""The STOMP broker against a real ActiveMQ and a plain client, which is a socket."""

import asyncio
import contextlib
import os
import ssl
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import pytest_asyncio

from ketch.broker import Outcome, Site
from ketch.brokers.stomp import StompBroker
from ketch.errors import BrokerError, BrokerUnavailable, ConfigurationError, MessageTooLarge, SubscriptionRefused
from ketch.message import Message, event_headers, stamp
from ketch.registries.memory import MemoryRegistry
from ketch.testing.servers import activemq_server, free_port
from ketch.transports.memory import MemoryTransport
from ketch.url import Url

pytestmark = pytest.mark.xdist_group("stomp")

SHARED = event_headers(source="test", type="t.v1.T", content_type="application/protobuf")


@asynccontextmanager
async def started(**options):
    """Run a server, or skip where there is none."""
    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(activemq_server(sync=False, **options))
        except RuntimeError as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(str(error))
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def activemq():
    async with started() as server:
        yield server


@pytest.fixture
def url(activemq):
    return activemq.url


def build(url):
    return StompBroker.from_url(Url.parse(url))


def site():
    return Site("test", "test-1", MemoryRegistry("stomp-test"), MemoryTransport("stomp-test"))


@asynccontextmanager
async def opened(url):
    broker = build(url)
    await broker.open(site())
    try:
        yield broker
    finally:
        await broker.close()


class Plain:
    """A client that writes and reads frames by hand."""

    def __init__(self, reader, writer):
        self._reader = reader
        self._writer = writer

    async def ask(self, frame):
        self._writer.write(frame + b"\0")
        return await self.next()

    async def next(self):
        raw = await asyncio.wait_for(self._reader.readuntil(b"\0"), 20)
        head, _, body = raw.lstrip(b"\n")[:-1].partition(b"\n\n")
        command, *lines = head.decode().split("\n")
        return command, dict(line.split(":", 1) for line in lines), body


@asynccontextmanager
async def plain(url):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    try:
        client = Plain(reader, writer)
        assert (await client.ask(b"CONNECT\naccept-version:1.2\nhost:x\n\n"))[0] == "CONNECTED"
        yield client
    finally:
        writer.close()


def message(body, topic="user.created", **metadata):
    return Message(topic, stamp({**SHARED, **metadata}), body)


async def take(subscription, count=1):
    held = []
    async with asyncio.timeout(20):
        while len(held) < count:
            held += await subscription.receive()
    return held


def bodies(held):
    return [delivery.message.body for delivery in held]


async def done(subscription, held):
    await subscription.settle([(delivery, Outcome.DONE) for delivery in held])


async def until(true):
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - it has no event of its own
            await asyncio.sleep(0.02)


# --- on the wire


async def test_a_plain_client_reads_our_events(url):
    async with plain(url) as client, opened(url) as broker:
        queue = b"/queue/Consumer.plain.VirtualTopic.for.plain"
        subscribe = b"SUBSCRIBE\nid:1\ndestination:" + queue + b"\nreceipt:1\n\n"
        assert (await client.ask(subscribe))[0] == "RECEIPT"
        sent = message(b"\x0a\x01x", "for.plain", tenant="a:b")
        await broker.publish(sent)
        command, headers, body = await client.next()
        assert (command, body) == ("MESSAGE", b"\x0a\x01x")
        expected = dict(sent.headers) | {"tenant": "a\\cb"}
        assert {name: headers[name].replace("\\c", ":") for name in sent.headers} == dict(sent.headers)
        assert headers["tenant"] == expected["tenant"]


async def test_we_read_the_events_of_a_plain_client_with_headers_and_without(url):
    async with plain(url) as client, opened(url) as broker:
        subscription = await broker.subscribe("of.plain", group="g")
        start = b"SEND\ndestination:/topic/VirtualTopic.of.plain\nreceipt:1\n"
        assert (await client.ask(start + b"\nbare"))[0] == "RECEIPT"
        held = await take(subscription)
        (came,) = [delivery.message for delivery in held]
        assert (came.topic, came.body, dict(came.headers), came.id) == ("of.plain", b"bare", {}, "")
        await client.ask(start + b"content-type:text/plain\nce-id:7\nTenant:a\\cb\nexpires:0\n\nnamed")
        held += await take(subscription)
        came = held[-1].message
        assert (came.body, came.id, came.content_type, came.metadata) == (
            b"named",
            "7",
            "text/plain",
            {"tenant": "a:b"},
        )
        await done(subscription, held)


async def test_any_topic_and_group_may_be_named(url):
    async with opened(url) as broker:
        for topic, group in (("größe.服务", "a.b"), ("a*b.c>d", "a/b"), ("a,b", "Grüße, Welt"), ("x?y=z", "100%")):
            subscription = await broker.subscribe(topic, group=group)
            other = await broker.subscribe(topic, group=group + "2")
            await broker.publish(message(b"x", topic))
            for one in (subscription, other):
                held = await take(one)
                assert held[0].message.topic == topic
                await done(one, held)


async def test_a_topic_that_activemq_cannot_have_is_refused(url):
    async with opened(url) as broker:
        for topic in ("", "a..b"):
            with pytest.raises(BrokerError, match="no topic"):
                await broker.publish(message(b"x", topic))


# --- settling


async def test_what_is_given_back_does_not_go_to_the_dead_letters(url):
    async with plain(url) as client, opened(url) as broker:
        subscribe = b"SUBSCRIBE\nid:1\ndestination:/queue/ActiveMQ.DLQ\nreceipt:1\n\n"
        assert (await client.ask(subscribe))[0] == "RECEIPT"
        subscription = await broker.subscribe("given.back", group="g")
        await broker.publish(message(b"x", "given.back"))
        for attempt in range(1, 12):
            (delivery,) = await take(subscription)
            assert delivery.attempt == attempt
            await subscription.settle([(delivery, Outcome.AGAIN)])
        await subscription.close()
        again = await broker.subscribe("given.back", group="g")
        (delivery,) = await take(again)
        await done(again, [delivery])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client._reader.readuntil(b"\0"), 0.3)


async def test_a_member_that_stopped_with_work_in_hand_leaves_when_it_is_done(url):
    async with opened(url) as one, opened(url) as two:
        leaver = await one.subscribe("drained", group="g")
        await one.publish(message(b"first", "drained"))
        held = await take(leaver)
        stayer = await two.subscribe("drained", group="g")
        await leaver.stop()
        sent = [b"%d" % number for number in range(10)]
        for body in sent:
            await one.publish(message(body, "drained"))
        await done(leaver, held)
        others = await take(stayer, 10)
        assert sorted(bodies(others)) == sorted(sent)
        await done(stayer, others)


async def test_a_key_stays_with_its_member_while_it_is_there(url):
    async with opened(url) as one, opened(url) as two:
        members = [await broker.subscribe("keyed", group="g") for broker in (one, two)]
        for number in range(20):
            await one.publish(message(b"%d" % number, "keyed", **{"ce-partitionkey": "k"}))
        taking = [asyncio.create_task(take(member, 20)) for member in members]
        finished, pending = await asyncio.wait(taking, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.wait(taking)
        (task,) = finished
        assert bodies(task.result()) == [b"%d" % number for number in range(20)]


# --- outages


async def test_publishing_waits_for_a_server_that_comes_back_in_time():
    async with started() as server, opened(f"{server.url}?timeout=20") as broker:
        await server.kill()
        publishing = asyncio.create_task(broker.publish(message(b"x")))
        await until(lambda: broker.trouble)
        assert not publishing.done()
        await server.start()
        await publishing


@asynccontextmanager
async def scripted(*answers, heard=None, tls=None):
    """Run a server that gives one answer to each frame that comes, and then says no more."""
    serving = set()

    async def serve(reader, writer):
        serving.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):  # the client leaves when it likes
            for answer in answers:
                await reader.readuntil(b"\0")
                writer.write(answer)
            while byte := await reader.read(1):
                if heard is not None:
                    heard.put_nowait(byte)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"stomp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    if serving:
        await asyncio.wait(serving)


WELCOME = b"CONNECTED\nversion:1.2\nheart-beat:%s\n\n\0"


async def test_a_server_that_falls_silent_is_noticed():
    """A socket that stays open proves nothing: the server has to beat."""
    async with scripted(WELCOME % b"200,200") as url, opened(f"{url}?heartbeat=0.2&timeout=0.2") as broker:
        await until(lambda: "silent" in broker.trouble)


async def test_we_give_signs_of_life():
    heard = asyncio.Queue()
    async with (
        scripted(WELCOME % b"0,200", heard=heard) as url,
        opened(f"{url}?heartbeat=0.2&timeout=0.2"),
        asyncio.timeout(20),
    ):
        assert [await heard.get() for _ in range(4)] == [b"\n"] * 4


# --- refusals


async def test_a_subscription_that_the_server_refuses_is_told():
    error = b"ERROR\nmessage:not yours\nreceipt-id:a1\n\n\0"
    async with scripted(WELCOME % b"0,0", error) as url, opened(f"{url}?timeout=0.5") as broker:
        with pytest.raises(SubscriptionRefused, match="not yours"):
            await broker.subscribe("theirs", group="g")


async def test_an_event_that_the_server_refuses_is_told():
    error = b"ERROR\nmessage:no room\nreceipt-id:1\n\n\0"
    async with scripted(WELCOME % b"0,0", error) as url, opened(f"{url}?timeout=0.5") as broker:
        with pytest.raises(BrokerError, match="no room"):
            await broker.publish(message(b"x"))


async def test_one_event_that_the_server_refuses_takes_no_others_with_it():
    """Those that were published together are tried one by one."""
    error, taken = b"ERROR\nmessage:no room\nreceipt-id:%d\n\n\0", b"RECEIPT\nreceipt-id:%d\n\n\0"
    answers = (WELCOME % b"0,0", b"", b"", b"", error % 1, taken % 2, error % 3)  # BEGIN, two SENDs, COMMIT; two SENDs
    async with scripted(*answers) as url, opened(f"{url}?timeout=2") as broker:
        results = await asyncio.gather(
            *(broker.publish(message(body)) for body in (b"a", b"b")), return_exceptions=True
        )
    assert results[0] is None
    assert "no room" in str(results[1])


async def test_a_server_of_an_older_protocol_is_refused():
    async with scripted(b"CONNECTED\nversion:1.0\n\n\0") as url:
        with pytest.raises(BrokerError, match=r"STOMP 1\.2"):
            await build(url).open(site())


async def test_credentials_are_checked_and_never_shown():
    async with started(user="ada", password="p:w") as server:
        right = server.url.replace("//", "//ada:p%3Aw@")
        async with opened(right) as broker:
            await broker.publish(message(b"x"))
        wrong = server.url.replace("//", "//ada:secret-word@")
        with pytest.raises(BrokerError, match="refuses our credentials") as caught:
            await build(wrong).open(site())
        assert "secret-word" not in str(caught.value)
        assert "secret-word" not in build(wrong).location


async def test_it_connects_encrypted_and_only_to_whom_we_trust(authority, stranger):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("server"))
    async with scripted(WELCOME % b"0,0", tls=context) as url:
        async with opened(f"{url}?tls_ca={authority.root}&timeout=0.2") as broker:
            assert broker.trouble == ""
        with pytest.raises(BrokerUnavailable, match="certificate"):
            await build(f"{url}?tls_ca={stranger.root}").open(site())


async def test_nobody_there_is_told_with_what_to_do():
    with pytest.raises(BrokerUnavailable, match="is it running"):
        await build(f"stomp://127.0.0.1:{free_port()}?connect_timeout=1").open(site())


async def test_one_of_several_servers_is_enough(url):
    async with opened(f"stomp://127.0.0.1:{free_port()},{url.partition('//')[2]}") as broker:
        await broker.publish(message(b"x"))


async def test_a_body_over_the_limit_is_refused(url):
    async with opened(url) as broker:
        with pytest.raises(MessageTooLarge):
            await broker.publish(message(bytes(16 * 1024 * 1024 + 1)))


@pytest.mark.parametrize(
    "options", ["scheduler=2", "timeout=0", "heartbeat=x", "tls_cert=a", "tls_ca=/does/not/exist", "path=1"]
)
def test_an_option_that_makes_no_sense_is_refused(options):
    with pytest.raises(ConfigurationError):
        build(f"stomp://127.0.0.1?{options}")


def test_events_for_later_need_a_server_that_is_said_to_have_a_scheduler():
    assert build("stomp://h?scheduler=1").capabilities.max_delay > 0
    assert build("stomp://h").capabilities.max_delay == 0
