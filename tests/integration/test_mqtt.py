"""The MQTT broker against a real Mosquitto and a plain client."""

import asyncio
import contextlib
import os
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import pytest_asyncio
from zmqtt import PublishProperties, QoS, create_client

from ketch.broker import Outcome, Site
from ketch.brokers.mqtt import MqttBroker
from ketch.errors import BrokerError, BrokerUnavailable, ConfigurationError, MessageTooLarge, SubscriptionRefused
from ketch.message import Message, event_headers, stamp
from ketch.registries.memory import MemoryRegistry
from ketch.testing.servers import free_port, mosquitto_server
from ketch.transports.memory import MemoryTransport
from ketch.url import Url

pytestmark = pytest.mark.xdist_group("mqtt")

SHARED = event_headers(source="test", type="t.v1.T", content_type="application/protobuf")


@asynccontextmanager
async def started(**options):
    """Run a server, or skip where there is none."""
    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(mosquitto_server(**options))
        except RuntimeError as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(str(error))
        yield server


def build(url):
    return MqttBroker.from_url(Url.parse(url))


def site():
    return Site("test", "test-1", MemoryRegistry("mqtt-test"), MemoryTransport("mqtt-test"))


@asynccontextmanager
async def opened(url):
    broker = build(url)
    await broker.open(site())
    try:
        yield broker
    finally:
        await broker.close()


def plain(url):
    return create_client("127.0.0.1", int(url.rpartition(":")[2]), version="5.0")


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


async def silence(subscription, seconds=0.3):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await subscription.receive()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mosquitto():
    async with started() as server:
        yield server


@pytest.fixture
def url(mosquitto):
    return mosquitto.url


@asynccontextmanager
async def scripted(answer):
    """Run a server that welcomes everybody, gives one answer to what comes then, and says no more."""
    serving = set()

    async def serve(reader, writer):
        serving.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError):  # the client leaves when it likes
            await reader.read(1000)
            writer.write(b"\x20\x03\x00\x00\x00")
            await reader.read(1000)
            writer.write(answer)
            await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    if serving:
        await asyncio.wait(serving)


# --- on the wire


async def test_a_plain_client_reads_our_events(url):
    async with plain(url) as client, opened(url) as broker:
        async with client.subscribe("user/created", qos=QoS.AT_LEAST_ONCE) as theirs:
            sent = message(b"\x0a\x01x", tenant="bbc")
            await broker.publish(sent)
            came = await asyncio.wait_for(theirs.get_message(), 10)
        assert (came.topic, came.payload) == ("user/created", b"\x0a\x01x")
        assert came.properties.content_type == "application/protobuf"
        expected = {name.removeprefix("ce-"): value for name, value in sent.headers.items() if name != "content-type"}
        assert dict(came.properties.user_properties) == expected


@pytest.mark.parametrize("options", ["", "?qos=0"])
async def test_we_read_the_events_of_a_plain_client_with_properties_and_without(url, options):
    async with plain(url) as client, opened(url + options) as broker:
        subscription = await broker.subscribe("user.created", group=f"plain{len(options)}")
        await client.publish("user/created", b"bare", qos=QoS.AT_LEAST_ONCE)
        held = await take(subscription)
        (came,) = [delivery.message for delivery in held]
        assert (came.topic, came.body, dict(came.headers), came.id) == ("user.created", b"bare", {}, "")
        await done(subscription, held)
        properties = PublishProperties(content_type="text/plain", user_properties=(("id", "7"), ("Tenant", "bbc")))
        await client.publish("user/created", b"named", qos=QoS.AT_MOST_ONCE, properties=properties)
        held = await take(subscription)
        (came,) = [delivery.message for delivery in held]
        assert (came.body, came.id, came.content_type, came.metadata) == (
            b"named",
            "7",
            "text/plain",
            {"tenant": "bbc"},
        )
        await done(subscription, held)


async def test_a_topic_with_a_dot_in_a_level_is_told_apart(url):
    async with plain(url) as client, opened(url) as broker:
        subscription = await broker.subscribe("v1/0.temperature", group=None)
        await client.publish("v1.0/temperature", b"x", qos=QoS.AT_LEAST_ONCE)
        (came,) = await take(subscription)
        assert came.message.topic == "v1/0.temperature"


async def test_a_pattern_gets_what_it_stands_for_and_nothing_more(url):
    async with opened(url) as broker:
        subscription = await broker.subscribe("shop.>", group="g", prefetch=2)
        other = await broker.subscribe("shop.*", group=None, prefetch=2)
        for number in range(3):
            await broker.publish(message(b"parent %d" % number, "shop"))
        for topic in ("shop.a", "shop.a.b"):
            await broker.publish(message(topic.encode(), topic))
        assert bodies(await take(subscription, 2)) == [b"shop.a", b"shop.a.b"]
        assert bodies(await take(other, 1)) == [b"shop.a"]


async def test_what_was_retained_is_not_an_event_of_now(url):
    async with plain(url) as client, opened(url) as broker:
        await client.publish("kept/topic", b"old", retain=True, qos=QoS.AT_LEAST_ONCE)
        subscription = await broker.subscribe("kept.topic", group=None)
        await broker.publish(message(b"new", "kept.topic"))
        assert bodies(await take(subscription)) == [b"new"]


async def test_a_topic_that_mqtt_cannot_have_is_refused(url):
    async with opened(url) as broker:
        for topic in ("a+b", "#", "", "a\x00b"):
            with pytest.raises(BrokerError, match="no topic"):
                await broker.publish(message(b"x", topic))
        await broker.publish(message(b"x"))


# --- groups


async def test_what_a_member_leaves_goes_to_one_that_is_there(url):
    async with opened(url) as one, opened(url) as two:
        leaver, stayer = [await broker.subscribe("left.over", group="g") for broker in (one, two)]
        for number in range(10):
            await one.publish(message(b"%d" % number, "left.over"))
        held = await take(leaver, 5)
        others = await take(stayer, 5)
        await leaver.close()
        again = await take(stayer, 5)
        assert sorted(bodies(again)) == sorted(bodies(held))
        await done(stayer, [*again, *others])


async def test_a_member_that_has_settled_everything_leaves_nothing_behind(url):
    async with opened(url) as one, opened(url) as two:
        leaver, stayer = [await broker.subscribe("clean.leave", group="g") for broker in (one, two)]
        await leaver.close()
        for number in range(20):
            await two.publish(message(b"%d" % number, "clean.leave"))
        assert len(await take(stayer, 20)) == 20
        assert len(stayer._sessions) == 1


async def test_the_last_to_leave_keeps_the_groups_place_though_all_leave_at_once(url):
    async with opened(url) as publisher:
        async with opened(url) as one, opened(url) as two:
            members = [await broker.subscribe("all.leave", group="g") for broker in (one, two)]
            await asyncio.gather(*(member.close() for member in members))
        sent = [b"%d" % number for number in range(20)]
        for body in sent:
            await publisher.publish(message(body, "all.leave"))
        subscription = await publisher.subscribe("all.leave", group="g")
        assert sorted(bodies(await take(subscription, 20))) == sorted(sent)


async def test_members_that_are_there_stay_undisturbed(url):
    """They give signs of life often enough for nobody to take their sessions."""
    async with opened(f"{url}?keepalive=1") as one, opened(f"{url}?keepalive=1") as two:
        members = [await broker.subscribe("alive", group="g") for broker in (one, two)]
        names = [[session.client_id for session in member._sessions] for member in members]
        await asyncio.sleep(4)  # more than the three and a half that may be missed
        assert [[session.client_id for session in member._sessions] for member in members] == names


async def test_two_that_take_the_same_session_do_not_fight_for_it(url):
    async with opened(url) as one, opened(url) as two:
        robbed, robber = [await broker.subscribe("taken.over", group="g") for broker in (one, two)]
        (session,) = robbed._sessions
        name = session.client_id
        await robber._join(name)
        await until(lambda: not (session.client_id == name or session.link.connection is None))
        sent = [b"%d" % number for number in range(30)]
        for body in sent:
            await one.publish(message(body, "taken.over"))
        came = [*await take(robbed, 10), *await take(robber, 20)]
        assert sorted(bodies(came)) == sorted(sent)


async def test_it_serves_a_server_that_takes_few_events_at_a_time():
    async with started(config="max_inflight_messages 3") as server, opened(server.url) as broker:
        subscription = await broker.subscribe("narrow", group="g")
        sent = [b"%d" % number for number in range(200)]
        await asyncio.gather(*(broker.publish(message(body, "narrow")) for body in sent))
        came = []
        while len(came) < len(sent):
            held = await take(subscription)
            came += bodies(held)
            await done(subscription, held)
        assert came == sent


# --- outages


async def test_what_was_settled_while_the_server_was_away_does_not_come_again():
    async with started(persistent=True) as server, opened(server.url) as broker:
        subscription = await broker.subscribe("away", group="g")
        await broker.publish(message(b"x", "away"))
        held = await take(subscription)
        await server.stop()
        await until(lambda: subscription.trouble)
        await done(subscription, held)
        await server.start()
        await until(lambda: not (subscription.trouble or broker.trouble))
        await silence(subscription)


async def test_events_wait_for_a_group_over_an_orderly_restart_of_a_server_that_writes_them_down():
    async with started(persistent=True) as server:
        async with opened(server.url) as broker:
            await broker.declare("kept", group="g")
            for number in range(50):
                await broker.publish(message(b"%d" % number, "kept"))
        await server.stop()
        await server.start()
        async with opened(server.url) as broker:
            subscription = await broker.subscribe("kept", group="g")
            assert len(await take(subscription, 50)) == 50


async def test_an_event_that_was_on_its_way_when_the_server_fell_is_sent_again():
    async with started() as server, opened(f"{server.url}?timeout=15") as broker:
        await server.kill()
        publishing = asyncio.create_task(broker.publish(message(b"x")))
        await asyncio.sleep(0.05)
        assert not publishing.done()
        await server.start()
        await publishing


async def test_a_server_that_falls_silent_is_noticed():
    """A socket that stays open proves nothing: the server has to answer."""
    async with scripted(b"") as address, opened(f"mqtt://{address}?keepalive=1&timeout=0.2") as broker:
        await until(lambda: "silent" in broker.trouble)
        with pytest.raises(BrokerUnavailable):
            await broker.publish(message(b"x"))


# --- refusals


async def test_wrong_credentials_are_told_without_being_shown(tmp_path):
    (tmp_path / "users").write_text("")
    config = f"allow_anonymous false\npassword_file {tmp_path}/users"
    async with started(config=config) as server:
        url = server.url.replace("//", "//ada:secret-word@")
        with pytest.raises(BrokerError, match="refuses our credentials") as caught:
            await build(url).open(site())
        assert "secret-word" not in str(caught.value)
        assert "secret-word" not in build(url).location


async def test_nobody_there_is_told_with_what_to_do():
    with pytest.raises(BrokerUnavailable, match="is it running"):
        await build(f"mqtt://127.0.0.1:{free_port()}?connect_timeout=1").open(site())


async def test_one_of_several_servers_is_enough(url):
    address = url.partition("//")[2]
    async with opened(f"mqtt://127.0.0.1:{free_port()},{address}") as broker:
        await broker.publish(message(b"x"))


async def test_a_topic_that_is_not_ours_to_write_is_refused(tmp_path):
    (tmp_path / "acl").write_text("topic readwrite ours/#\n")
    async with started(config=f"acl_file {tmp_path}/acl") as server, opened(server.url) as broker:
        with pytest.raises(BrokerError, match="0x87"):
            await broker.publish(message(b"x", "theirs.topic"))
        await broker.publish(message(b"x", "ours.topic"))


@pytest.mark.parametrize(("code", "why"), [(b"\x87", "not authorized"), (b"\x00", "QoS 0")])
async def test_a_subscription_that_the_server_does_not_give_is_refused(code, why):
    """Mosquitto's files of rules refuse no subscription, so this server says what others do."""
    async with scripted(b"\x90\x04\x00\x01\x00" + code) as address, opened(f"mqtt://{address}") as broker:
        with pytest.raises(SubscriptionRefused, match=why):
            await broker.subscribe("theirs.topic", group=None)


async def test_the_servers_own_limit_is_told_before_it_cuts_the_connection():
    async with started(config="max_packet_size 2000") as server, opened(server.url) as broker:
        with pytest.raises(MessageTooLarge):
            await broker.publish(message(bytes(2000)))
        await broker.publish(message(bytes(1000)))
        assert broker.trouble == ""


async def test_events_travel_encrypted_and_only_to_whom_we_trust(authority, stranger):
    cert, key = authority.issue("server")
    config = f"certfile {cert}\nkeyfile {key}"
    async with started(config=config) as server:
        async with opened(f"{server.url}?tls_ca={authority.root}") as broker:
            subscription = await broker.subscribe("tls", group="g")
            await broker.publish(message(b"x", "tls"))
            assert bodies(await take(subscription)) == [b"x"]
        with pytest.raises(BrokerUnavailable, match="certificate"):
            await build(f"{server.url}?tls_ca={stranger.root}").open(site())


@pytest.mark.parametrize(
    "options", ["qos=2", "timeout=0", "expiry=x", "keepalive=0", "tls_cert=a", "tls_ca=/does/not/exist", "path=1"]
)
def test_an_option_that_makes_no_sense_is_refused(options):
    with pytest.raises(ConfigurationError):
        build(f"mqtt://127.0.0.1?{options}")


@pytest.mark.parametrize("address", ["host:port", ":1", "host:0"])
def test_an_address_that_makes_no_sense_is_refused(address):
    with pytest.raises(ConfigurationError):
        build(f"mqtt://{address}")


def test_it_promises_no_more_than_its_qos_keeps():
    assert build("mqtt://h").capabilities.redelivers
    assert not build("mqtt://h?qos=0").capabilities.redelivers
    assert MqttBroker.capabilities.redelivers
