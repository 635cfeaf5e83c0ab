"""What is Pub/Sub's own: the wire as plain clients see it, names, variables, what was deleted, refusals."""

import asyncio
import os
from uuid import uuid4

import grpc.aio
import pytest
import pytest_asyncio
import trustme
from google import pubsub_v1
from google.pubsub_v1.services.publisher import PublisherAsyncClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
from google.pubsub_v1.services.subscriber import SubscriberAsyncClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport

from ketch.broker import Outcome, Site
from ketch.brokers.googlepubsub import GooglePubSubBroker
from ketch.brokers.googlepubsub.envelope import unwrap, wrap
from ketch.brokers.googlepubsub.names import subscription_path, topic_path
from ketch.brokers.googlepubsub.rpcs import Rpcs
from ketch.errors import BrokerError, BrokerUnavailable, ConfigurationError, MessageTooLarge
from ketch.message import Message, event_headers, stamp
from ketch.options import build
from ketch.registries.memory import MemoryRegistry
from ketch.settings import read
from ketch.testing.servers import free_port
from ketch.testing.servers.googlepubsub import googlepubsub_server
from ketch.testing.servers.pubsub.service import Described
from ketch.transports.memory import MemoryTransport
from ketch.url import Url

pytestmark = pytest.mark.xdist_group("googlepubsub")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    try:
        async with googlepubsub_server() as server:
            yield server
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def site():
    return Site("test", "1", MemoryRegistry.from_url(Url("memory")), MemoryTransport.from_url(Url("memory")))


@pytest.fixture
async def make(server):
    made = []

    async def make(options=""):
        broker = GooglePubSubBroker.from_url(Url.parse(f"{server.url}/shop?timeout=2&ack_deadline=1{options}"))
        made.append(broker)
        await broker.open(site())
        return broker

    yield make
    for broker in made:
        await broker.close()


@pytest.fixture
async def plain(server):
    """Google's own client for asyncio."""
    async with grpc.aio.insecure_channel(server.url.partition("//")[2]) as channel:
        yield (
            PublisherAsyncClient(transport=PublisherGrpcAsyncIOTransport(channel=channel)),
            SubscriberAsyncClient(transport=SubscriberGrpcAsyncIOTransport(channel=channel)),
        )


def event(topic, body=b"x", **metadata):
    shared = event_headers(source="shop", type="shop.v1.Order", content_type="application/protobuf")
    return Message(topic, stamp({**shared, **metadata}), body)


async def take(subscription):
    async with asyncio.timeout(10):
        (delivery,) = await subscription.receive()
    return delivery


@pytest.fixture
def topic():
    return f"orders.{uuid4().hex}"


async def test_a_plain_client_reads_an_event(make, plain, topic):
    broker = await make()
    await broker.declare(topic, group="audit")
    sent = event(topic, b"\x08\x01", tenant="bbc", **{"ce-partitionkey": "user-7"})
    await broker.publish(sent)
    answer = await plain[1].pull(subscription=subscription_path("shop", topic, "audit"), max_messages=5)
    (received,) = answer.received_messages
    assert dict(received.message.attributes) == dict(sent.headers)
    assert (received.message.data, received.message.ordering_key) == (b"\x08\x01", "user-7")


async def test_a_plain_client_writes_an_event_without_any_attributes(make, plain, topic):
    broker = await make()
    subscription = await broker.subscribe(topic, group="g")
    await plain[0].publish(topic=topic_path("shop", topic), messages=[{"data": b"bare"}])
    message = (await take(subscription)).message
    assert (message.topic, dict(message.headers), message.body) == (topic, {}, b"bare")


async def test_a_plain_clients_names_and_ordering_key_arrive(make, plain, topic):
    broker = await make()
    subscription = await broker.subscribe(topic, group="g")
    sent = {"data": b"", "attributes": {"X-Tenant": "bbc", "content-type": "text/plain"}, "ordering_key": "k"}
    await plain[0].publish(topic=topic_path("shop", topic), messages=[sent])
    message = (await take(subscription)).message
    assert dict(message.headers) == {"x-tenant": "bbc", "content-type": "text/plain", "ce-partitionkey": "k"}


async def test_a_group_is_created_to_stay_and_with_order(make, plain, topic):
    broker = await make()
    await broker.declare(topic, group="go.micro.srv.email")
    path = f"projects/shop/subscriptions/go.micro.srv.email~{topic}"
    described = await plain[1].get_subscription(subscription=path)
    assert described.enable_message_ordering
    assert "expiration_policy" in described
    assert not described.expiration_policy.ttl


async def test_a_subscription_without_a_group_is_deleted_at_its_end(make, plain, topic):
    broker = await make()
    subscription = await broker.subscribe(topic, group=None)
    path = subscription.path
    assert (await plain[1].get_subscription(subscription=path)).expiration_policy.ttl.days == 1
    await subscription.close()
    with pytest.raises(Exception, match="not found"):
        await plain[1].get_subscription(subscription=path)


async def test_a_subscription_that_was_deleted_is_made_anew(make, plain, topic):
    broker = await make()
    subscription = await broker.subscribe(topic, group="g")
    await plain[1].delete_subscription(subscription=subscription.path)
    async with asyncio.timeout(10):
        while True:
            await broker.publish(event(topic))
            try:
                async with asyncio.timeout(0.2):
                    assert await subscription.receive()
                break
            except TimeoutError:
                continue


async def test_a_topic_that_was_deleted_is_made_anew(make, plain, topic):
    broker = await make()
    await broker.publish(event(topic))
    await plain[0].delete_topic(topic=topic_path("shop", topic))
    await broker.publish(event(topic))
    assert await plain[0].get_topic(topic=topic_path("shop", topic))


async def test_without_leave_to_create_it_says_what_is_missing(make, topic):
    broker = await make("&create=off")
    with pytest.raises(BrokerError, match="not found"):
        await broker.publish(event(topic))
    with pytest.raises(BrokerError, match="not found"):
        await broker.subscribe(topic, group="g")


async def test_pub_subs_own_dead_letters_are_a_backstop(make, topic):
    broker = await make("&dead_letter_topic=graveyard&max_delivery_attempts=5")
    await broker.declare("graveyard", group="g")
    grave = await broker.subscribe("graveyard", group="g")
    subscription = await broker.subscribe(topic, group="g")
    await broker.publish(event(topic, b"poison"))
    for attempt in range(1, 6):
        delivery = await take(subscription)
        assert delivery.attempt == attempt
        await subscription.settle([(delivery, Outcome.AGAIN)])
    assert (await take(grave)).message.body == b"poison"


async def test_a_lower_limit_reaches_the_service(make, topic):
    """With one delivery in hand and a limit of one, the others go to the other member."""
    one, two = await make(), await make()
    busy = await one.subscribe(topic, group="g")
    await busy.limit(1)
    other = await two.subscribe(topic, group="g")
    for number in range(10):
        await one.publish(event(topic, b"%d" % number))
    held = await take(busy)
    came = []
    async with asyncio.timeout(10):
        while len(came) < 9:
            came += await other.receive()
    assert held.message.body not in {delivery.message.body for delivery in came}


async def test_many_events_published_at_once_share_requests(make, topic, monkeypatch):
    broker = await make()
    await broker.publish(event(topic))
    requests = []
    call = Rpcs.call

    async def counted(self, method, request, *rest):
        requests.append(request)
        return await call(self, method, request, *rest)

    monkeypatch.setattr(Rpcs, "call", counted)
    await asyncio.gather(*(broker.publish(event(topic)) for _ in range(3000)))
    assert sum(len(request.messages) for request in requests) == 3000
    assert len(requests) < 10


async def test_one_that_the_service_does_not_take_leaves_the_others_alone(make, topic):
    """It refuses a request as a whole."""
    broker = await make()
    subscription = await broker.subscribe(topic, group="g")
    events = [event(topic, b"a"), Message(topic, {}, b""), event(topic, b"b")]
    results = await asyncio.gather(*map(broker.publish, events), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), BrokerError, type(None)]
    came = set()
    async with asyncio.timeout(10):
        while len(came) < 2:
            came.update(delivery.message.body for delivery in await subscription.receive())
    assert came == {b"a", b"b"}


async def test_a_server_that_is_not_there_is_named():
    broker = GooglePubSubBroker.from_url(Url.parse(f"googlepubsub://127.0.0.1:{free_port()}/p?connect_timeout=0.3"))
    with pytest.raises(BrokerUnavailable, match="is it running"):
        await broker.open(site())


async def test_events_go_over_tls_and_a_stranger_is_refused(tmp_path, topic):
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    cert, key, root = (str(tmp_path / name) for name in ("cert.pem", "key.pem", "root.pem"))
    issued.private_key_pem.write_to_path(key)
    issued.cert_chain_pems[0].write_to_path(cert)
    authority.cert_pem.write_to_path(root)
    async with googlepubsub_server(tls=(cert, key)) as server:
        broker = GooglePubSubBroker.from_url(Url.parse(f"{server.url}/p?tls_ca={root}"))
        await broker.open(site())
        subscription = await broker.subscribe(topic, group="g")
        await broker.publish(event(topic, b"safe"))
        assert (await take(subscription)).message.body == b"safe"
        await broker.close()
        stranger = GooglePubSubBroker.from_url(Url.parse(f"{server.url}/p?tls=on&connect_timeout=1"))
        with pytest.raises(BrokerUnavailable):
            await stranger.open(site())


async def test_a_key_file_that_is_no_key_is_refused_without_being_shown(tmp_path):
    file = tmp_path / "key.json"
    file.write_text('{"private_key": "hunter2"')
    broker = GooglePubSubBroker.from_url(Url.parse(f"googlepubsub:///p?credentials={file}"))
    with pytest.raises(ConfigurationError, match="credentials") as error:
        await broker.open(site())
    assert "hunter2" not in str(error.value)


def test_headers_beyond_the_limits_come_through():
    headers = {"goog-x": "1", "a" * 300: "2", "long": "ü" * 5000, "plain": "3", "ce-id": "4"}
    there = wrap(Message("t", headers, b""))
    assert all(len(k.encode()) <= 256 and len(v.encode()) <= 1024 for k, v in there.attributes.items())
    assert (there.attributes["plain"], there.attributes["ce-id"]) == ("3", "4")
    assert dict(unwrap("t", there).headers) == headers
    many = {f"name-{number}": "v" for number in range(500)}
    assert dict(unwrap("t", wrap(Message("t", many, b""))).headers) == many
    with pytest.raises(MessageTooLarge):
        wrap(Message("t", {"huge": "v" * 200_000}, b""))


def test_names_never_collide_and_fit():
    names = [
        "a",
        "ab",
        "abc",
        "x%.ab",
        "1st",
        "goog.x",
        "Goog",
        "ü",
        "%C3%BC",
        "a b",
        "a/b",
        "",
        "~",
        "a~b",
        "x" * 300,
        "x" * 301,
    ]
    paths = [topic_path("p", name) for name in names]
    assert len(set(paths)) == len(names)
    pairs = [("a", "b~c"), ("a~b", "c"), ("a", "b.c"), ("a.b", "c"), ("x" * 200, "y" * 200), ("x" * 200, "y" * 201)]
    subscriptions = [subscription_path("p", topic, group) for group, topic in pairs]
    assert len(set(subscriptions)) == len(pairs)
    for path in paths + subscriptions:
        name = path.rpartition("/")[2]
        assert 3 <= len(name) <= 255
        assert name[0].isalpha()
        assert not name.lower().startswith("goog")


@pytest.mark.parametrize(
    ("environ", "location"),
    [
        ({"PUBSUB_EMULATOR_HOST": "127.0.0.1:8085"}, "googlepubsub://127.0.0.1:8085/ketch"),
        (
            {"PUBSUB_EMULATOR_HOST": "127.0.0.1:8085", "GOOGLE_CLOUD_PROJECT": "shop"},
            "googlepubsub://127.0.0.1:8085/shop",
        ),
        ({"GOOGLE_CLOUD_PROJECT": "shop"}, "googlepubsub://pubsub.googleapis.com:443/shop"),
        (
            {"PUBSUB_EMULATOR_HOST": "127.0.0.1:8085", "MICRO_BROKER_ADDRESS": "127.0.0.1:9"},
            "googlepubsub://127.0.0.1:9/ketch",
        ),
        (
            {"MICRO_BROKER": "googlepubsub:///other", "GOOGLE_CLOUD_PROJECT": "shop"},
            "googlepubsub://pubsub.googleapis.com:443/other",
        ),
    ],
)
def test_googles_variables_say_where_it_is(environ, location):
    options = build(read([], {"MICRO_BROKER": "googlepubsub", **environ}), {})
    assert options.broker.location == location


def test_without_a_project_it_says_how_to_name_one():
    with pytest.raises(ConfigurationError, match="GOOGLE_CLOUD_PROJECT"):
        build(read([], {"MICRO_BROKER": "googlepubsub"}), {})


@pytest.mark.parametrize("option", ["ack_deadline=0", "ack_deadline=601", "create=maybe", "timeout=0", "tls_cert=x"])
def test_a_wrong_option_is_refused(option):
    with pytest.raises(ConfigurationError):
        GooglePubSubBroker.from_url(Url.parse(f"googlepubsub://127.0.0.1:1/p?{option}"))


async def test_the_test_server_is_as_strict_as_the_service(plain, topic):
    """Else the plugin's care for limits would be tested by nothing."""
    publisher, subscriber = plain
    path = topic_path("shop", topic)
    await publisher.create_topic(name=path)
    with pytest.raises(Exception, match="not allowed"):
        await publisher.publish(topic=path, messages=[{"data": b"x", "attributes": {"long": "v" * 1025}}])
    with pytest.raises(Exception, match="deadline"):
        await subscriber.create_subscription(
            request=pubsub_v1.Subscription.wrap(
                Described(name=f"{path.replace('topics', 'subscriptions')}", topic=path, ack_deadline_seconds=601)
            )
        )
