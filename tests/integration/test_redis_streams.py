"""Redis Streams against real servers and plain clients."""

import asyncio
import logging
import signal
import time
from contextlib import asynccontextmanager

import pytest
import redis.asyncio as plain_redis

from ketch.broker import Outcome, Site
from ketch.brokers.redis_streams import RedisStreamsBroker
from ketch.brokers.redis_streams.entry import Fields, fields
from ketch.errors import BrokerError, BrokerUnavailable, ConfigurationError, SubscriptionRefused
from ketch.message import Message, event_headers, stamp
from ketch.registries.memory import MemoryRegistry
from ketch.testing.servers import redis_server
from ketch.transports.memory import MemoryTransport
from ketch.url import Url

pytestmark = pytest.mark.xdist_group("redis-streams")

SHARED = event_headers(source="test", type="t.v1.T", content_type="application/protobuf")


def build(url):
    return RedisStreamsBroker.from_url(Url.parse(url))


@asynccontextmanager
async def opened(server, options=""):
    broker = build(server.url + options)
    await broker.open(Site("test", "test-1", MemoryRegistry("redis-test"), MemoryTransport("redis-test")))
    try:
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def running(options="", **how):
    """Give a server, a broker, and a plain client."""
    async with redis_server(scheme="redis-streams", **how) as server, opened(server, options) as broker:
        client = plain_redis.from_url(server.url.replace("redis-streams", "redis"))
        try:
            yield server, broker, client
        finally:
            await client.aclose()


def message(body, topic="t", **headers):
    return Message(topic, stamp({**SHARED, **headers}), body)


async def publish(broker, *bodies, topic="t"):
    await asyncio.gather(*(broker.publish(message(body, topic)) for body in bodies))


async def hold(subscription, count):
    held = []
    async with asyncio.timeout(20):
        while len(held) < count:
            held += await subscription.receive()
    return held


def done(deliveries):
    return [(delivery, Outcome.DONE) for delivery in deliveries]


async def take(subscription, count):
    bodies = []
    while len(bodies) < count:
        held = await hold(subscription, 1)
        await subscription.settle(done(held))
        bodies += [delivery.message.body for delivery in held]
    return bodies


async def until(true):
    """Wait until a coroutine function's answer is yes."""
    async with asyncio.timeout(20):
        while not await true():  # noqa: ASYNC110 - a server's state comes without an event of ours
            await asyncio.sleep(0.02)


# --- on the wire


async def test_a_plain_client_reads_our_events():
    sent = message(b"\x00\xff", **{"x-tenant": "bbc", "data": "mine"})
    async with running() as (_, broker, client):
        await broker.publish(sent)
        ((_, entry),) = await client.xrange("t")
    names = {b":data" if name == "data" else name.encode(): value.encode() for name, value in sent.headers.items()}
    assert entry == {**names, b"data": b"\x00\xff"}


@pytest.mark.parametrize(
    ("written", "headers", "body"),
    [
        ({"data": '{"name": "Ada"}'}, {}, b'{"name": "Ada"}'),
        ({"data": "x", "Content-Type": "text/plain"}, {"content-type": "text/plain"}, b"x"),
        ({"name": "Ada"}, {"name": "Ada"}, b""),
        ({"x": b"\xff", "data": b"\xff"}, {"x": "\ufffd"}, b"\xff"),
    ],
)
async def test_what_a_plain_client_adds_is_an_event(written, headers, body):
    async with running() as (_, broker, client):
        alone = await broker.subscribe("t", group=None)
        member = await broker.subscribe("t", group="g")
        await client.xadd("t", written)
        for subscription in (alone, member):
            (delivery,) = await hold(subscription, 1)
            assert (dict(delivery.message.headers), delivery.message.body) == (headers, body)


@pytest.mark.parametrize(
    "headers", [{}, {"a": "data", "data": "a"}, {"data": "data"}, {"x": "ce-id", "ce-id": "x"}, {"": ""}]
)
def test_each_header_is_found_alone_as_it_is_among_all(headers):
    raw = [part.encode() if isinstance(part, str) else part for part in fields(Message("t", headers, b"body"))]
    assert dict(Fields(raw)) == headers
    assert {name: Fields(raw).get(name) for name in (*headers, "absent")} == {**headers, "absent": None}


async def test_a_plain_client_may_be_a_member_of_our_group():
    async with running() as (_, broker, client):
        await broker.declare("t", group="g")
        await publish(broker, b"x")
        ((_, [(entry_id, _)]),) = await client.xreadgroup("g", "plain", {"t": ">"})
        assert await client.xack("t", "g", entry_id) == 1


# --- options


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("redis-streams://a?claim_after=0.5", "claim_after"),
        ("redis-streams://a?keep=-1", "keep"),
        ("redis-streams://a?envelope=x", "no option 'envelope'"),
    ],
)
def test_a_wrong_url_is_refused(url, what):
    with pytest.raises(ConfigurationError, match=what):
        build(url)


async def test_a_key_of_another_kind_is_refused():
    async with running() as (_, broker, client):
        await client.set("t", "a string")
        for group in ("g", None):
            with pytest.raises(SubscriptionRefused, match="WRONGTYPE"):
                await broker.subscribe("t", group=group)
        with pytest.raises(SubscriptionRefused, match="WRONGTYPE"):
            await broker.declare("t", group="g")
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await publish(broker, b"x")


async def test_a_stream_that_becomes_something_else_ends_the_subscription():
    async with running() as (_, broker, client):
        subscription = await broker.subscribe("t", group="g")
        await client.set("t", "a string")
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await hold(subscription, 1)


async def test_a_full_server_refuses_and_says_why_while_events_can_be_taken():
    async with running() as (_, broker, client):
        subscription = await broker.subscribe("t", group="g")
        await publish(broker, b"before")
        held = await hold(subscription, 1)
        await client.config_set("maxmemory", "1")
        with pytest.raises(BrokerError, match="maxmemory"):
            await publish(broker, b"x")
        await subscription.settle(done(held))
        await client.config_set("maxmemory", "0")
        await publish(broker, b"after")
        assert await take(subscription, 1) == [b"after"]


# --- who has what


async def test_a_group_is_left_clean():
    async with running() as (_, broker, client):
        subscription = await broker.subscribe("t", group="g", prefetch=5)
        await publish(broker, *(b"%d" % n for n in range(10)))
        held = await hold(subscription, 5)
        await subscription.settle(done(held[:2]))
        await subscription.close()
        consumers = await client.xinfo_consumers("t", "g")
        assert {consumer["name"] for consumer in consumers} == {b"ketch:waiting"}
        assert await client.keys("ketch:*") == []


async def test_what_was_never_received_does_not_count_as_tried():
    async with running() as (_, broker, client):
        leaver = await broker.subscribe("t", group="g")
        await publish(broker, b"a", b"b")

        async def taken():
            return (await client.xpending("t", "g"))["pending"] == 2

        await until(taken)
        await leaver.close()
        stayer = await broker.subscribe("t", group="g")
        assert [delivery.attempt for delivery in await hold(stayer, 2)] == [1, 1]


async def test_the_dead_are_buried_and_what_they_held_is_handled():
    async with running("?claim_after=1&timeout=1") as (server, broker, client):
        survivor = await broker.subscribe("t", group="g", prefetch=10)
        async with opened(server, "?claim_after=1") as other:
            victim = await other.subscribe("t", group="g")
            name = victim._consumer
            await publish(broker, b"a", b"b", b"c", b"d")

            async def shared():
                return len(survivor._hand) + len(victim._hand) == 4

            await until(shared)
            victim._task.cancel()  # it is alive no more, and says nothing of it
            await asyncio.wait({victim._task})
            assert sorted(await take(survivor, 4)) == [b"a", b"b", b"c", b"d"]

            async def buried():
                return name.encode() not in {c["name"] for c in await client.xinfo_consumers("t", "g")}

            await until(buried)
            victim._hand.clear()
        assert (await client.xpending("t", "g"))["pending"] == 0


async def test_what_is_in_hand_after_stop_is_nobody_elses():
    async with running("?claim_after=1") as (_, broker, _):
        subscription = await broker.subscribe("t", group="g")
        await publish(broker, b"x")
        held = await hold(subscription, 1)
        await subscription.stop()
        other = await broker.subscribe("t", group="g")
        receiving = asyncio.create_task(other.receive())
        assert not (await asyncio.wait({receiving}, timeout=2.0))[0]
        await subscription.settle(done(held))
        await subscription.close()
        await publish(broker, b"end")
        assert [delivery.message.body for delivery in await receiving] == [b"end"]


async def test_what_a_plain_client_holds_for_too_long_is_handled():
    async with running("?claim_after=1") as (_, broker, client):
        await broker.declare("t", group="g")
        await publish(broker, b"x")
        await client.xreadgroup("g", "plain", {"t": ">"})
        subscription = await broker.subscribe("t", group="g")
        (delivery,) = await hold(subscription, 1)
        assert (delivery.message.body, delivery.attempt) == (b"x", 2)


async def test_one_that_waits_for_later_is_nobody_elses_after_the_claims(caplog):
    async with running("?claim_after=1") as (_, broker, _):
        subscription = await broker.subscribe("t", group="g")
        await publish(broker, b"x")
        (delivery,) = await hold(subscription, 1)
        delivery.retry_after = 2.0
        given_back = time.monotonic()
        await subscription.settle([(delivery, Outcome.AGAIN)])
        assert await take(subscription, 1) == [b"x"]
        assert time.monotonic() - given_back > 1.9


async def test_without_a_group_what_is_given_back_comes_again_to_itself():
    async with running() as (_, broker, _):
        subscription = await broker.subscribe("t", group=None)
        await publish(broker, b"now", b"later")
        now, later = await hold(subscription, 2)
        later.retry_after = 0.2
        await subscription.settle([(later, Outcome.AGAIN), (now, Outcome.AGAIN)])
        again = await hold(subscription, 2)
        assert [(d.message.body, d.attempt) for d in again] == [(b"now", 2), (b"later", 2)]


# --- for later


async def test_an_event_for_later_outlives_the_server_and_comes_once():
    async with running() as (server, broker, client):
        members = [await broker.subscribe("t", group="g") for _ in range(3)]
        await broker.publish(message(b"later"), delay=1.0)
        await server.restart()

        async def released():
            return await client.xlen("t") == 1

        await until(released)
        receiving = [asyncio.create_task(take(member, 1)) for member in members]
        finished, rest = await asyncio.wait(receiving, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        assert [task.result() for task in finished] == [[b"later"]]
        for task in rest:
            task.cancel()
        await asyncio.wait(rest)
        assert await client.keys("ketch:scheduled*") == []
        assert await client.xlen("t") == 1


async def test_the_same_event_may_be_published_for_later_twice():
    async with running() as (_, broker, _):
        subscription = await broker.subscribe("t", group="g")
        same = message(b"x")
        await asyncio.gather(broker.publish(same, delay=0.1), broker.publish(same, delay=0.1))
        assert await take(subscription, 2) == [b"x", b"x"]


# --- retention


async def test_what_everybody_has_settled_is_removed_and_nothing_else():
    async with running("?keep=0.001") as (_, broker, client):
        quick = await broker.subscribe("t", group="quick", prefetch=2000)
        slow = await broker.subscribe("t", group="slow", prefetch=300)
        sent = [b"%d" % n for n in range(1000)]
        await publish(broker, *sent)
        held = await hold(slow, 300)
        await slow.settle(done(held[250:]))
        await take(quick, 1000)
        await broker._trimming._trim("t")
        assert await client.xlen("t") == 1000  # the oldest that `slow` holds is the first
        await slow.settle(done(held[:250]))
        await broker._trimming._trim("t")
        assert 700 <= await client.xlen("t") < 1000
        assert sorted([d.message.body for d in held] + await take(slow, 700)) == sorted(sent)
        await broker._trimming._trim("t")
        assert await client.xlen("t") <= 100  # a node of the stream at most


async def test_what_nobody_subscribed_to_is_kept_for_its_time_only():
    async with running("?keep=0.001") as (_, broker, client):
        await publish(broker, *(b"%d" % n for n in range(300)))
        await asyncio.sleep(0.01)
        await broker._trimming._trim("t")
        assert await client.xlen("t") < 100


async def test_many_events_are_trimmed_before_the_round():
    async with running("?keep=0.001") as (_, broker, client):
        for _ in range(17):
            await publish(broker, *[b"x"] * 1000)

        async def trimmed():
            return await client.xlen("t") < 16_000

        await until(trimmed)


# --- outages


@pytest.mark.parametrize("group", ["g", None])
async def test_a_server_that_comes_back_empty_is_subscribed_anew(group, caplog):
    async with running(keeps=False) as (server, broker, _):
        subscription = await broker.subscribe("t", group=group)
        await publish(broker, b"before")
        assert await take(subscription, 1) == [b"before"]
        with caplog.at_level(logging.WARNING, "ketch.broker"):
            await server.restart()
            await publish(broker, b"after")  # maybe before the group is made again
            assert await take(subscription, 1) == [b"after"]
    assert len([record for record in caplog.records if "is back" in record.message]) == 1


@pytest.mark.parametrize("command", ["FLUSHALL", "DEL t", "XGROUP DESTROY t g", "RENAME t elsewhere"])
async def test_a_group_that_is_deleted_is_made_again_at_once(command, caplog):
    async with running() as (_, broker, client):
        subscription = await broker.subscribe("t", group="g")
        await publish(broker, b"before")
        assert await take(subscription, 1) == [b"before"]
        with caplog.at_level(logging.WARNING, "ketch.broker"):
            await client.execute_command(*command.split())
            await publish(broker, b"after")
            assert await take(subscription, 1) == [b"after"]
            assert not subscription.trouble
    assert 1 <= len([record for record in caplog.records if "was deleted" in record.message]) <= 2


async def test_a_connection_that_is_cut_loses_nothing_that_was_on_its_way():
    async with running("?claim_after=60") as (_, broker, client):
        subscription = await broker.subscribe("t", group="g", prefetch=50)
        sent = [b"%d" % n for n in range(3000)]
        publishing = asyncio.create_task(publish(broker, *sent[:1500]))
        seen = set()
        for _ in range(5):
            seen.update(await take(subscription, 20))
            await client.client_kill_filter(_id=subscription._client)
        await publishing
        await publish(broker, *sent[1500:])
        async with asyncio.timeout(20):
            while len(seen) < len(sent):
                seen.update(await take(subscription, 1))
        assert seen == set(sent)
        assert (await client.xpending("t", "g"))["pending"] == 0


async def test_what_could_not_be_settled_comes_again():
    async with running("?claim_after=60&timeout=0.3") as (server, broker, _):
        subscription = await broker.subscribe("t", group="g")
        await publish(broker, b"x")
        held = await hold(subscription, 1)
        server._process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(BrokerUnavailable):
                await subscription.settle([(held[0], Outcome.AGAIN)])
            assert broker.trouble
            assert subscription.trouble or broker.trouble
        finally:
            server._process.send_signal(signal.SIGCONT)
        assert await take(subscription, 1) == [b"x"]


async def test_closing_while_the_server_hangs_ends_in_time(caplog):
    async with running("?timeout=0.3") as (server, broker, _):
        subscription = await broker.subscribe("t", group="g")
        await publish(broker, b"x")
        await hold(subscription, 1)
        server._process.send_signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(10):
                await broker.close()
        finally:
            server._process.send_signal(signal.SIGCONT)
    assert "comes again in" in caplog.text


async def test_a_lower_limit_holds_for_what_comes_next():
    async with running() as (_, broker, client):
        subscription = await broker.subscribe("t", group="g")
        await subscription.limit(2)
        await asyncio.sleep(0.1)
        await publish(broker, *(b"%d" % n for n in range(10)))
        held = await hold(subscription, 2)
        assert (await client.xpending("t", "g"))["pending"] == len(held) == 2
        await subscription.settle(done(held))
        assert len(await take(subscription, 8)) == 8


async def test_the_whole_prefetch_is_used_though_nothing_is_settled():
    async with running() as (_, broker, _):
        subscription = await broker.subscribe("t", group="g", prefetch=16)
        for number in range(16):
            await publish(broker, b"%d" % number)
            await hold(subscription, 1)
