"""The SQS broker against moto's server and plain clients."""

import asyncio
import json
import logging
import os
import ssl
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import pytest_asyncio
from aiobotocore.session import AioSession

from ketch.broker import Outcome, Site
from ketch.brokers.sqs import SqsBroker, leftovers, place
from ketch.brokers.sqs.names import lone_name, lone_prefix, queue_name, topic_name
from ketch.errors import BrokerError, BrokerUnavailable, ConfigurationError, MessageTooLarge, SubscriptionRefused
from ketch.message import Message, event_headers, stamp
from ketch.registries.memory import MemoryRegistry
from ketch.testing.servers import free_port
from ketch.testing.servers.moto import moto_server
from ketch.transports.memory import MemoryTransport
from ketch.url import Url

pytestmark = pytest.mark.xdist_group("sqs")

SHARED = event_headers(source="test", type="t.v1.T", content_type="application/json")
POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["sqs:*"], "Resource": "*"}],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def moto():
    try:
        async with moto_server() as server:
            yield server
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error), allow_module_level=False)


@pytest.fixture
def url(moto):
    return f"{moto.url}&wait=1"


@asynccontextmanager
async def opened(url):
    broker = SqsBroker.from_url(Url.parse(url))
    await broker.open(Site("test", "test-1", MemoryRegistry("sqs-test"), MemoryTransport("sqs-test")))
    try:
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def plain(url, *services):
    """Clients as anybody would make them."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                AioSession().create_client(
                    service,
                    endpoint_url=f"http://{Url.parse(url).address}",
                    region_name="us-east-1",
                    aws_access_key_id="plain",
                    aws_secret_access_key="plain",
                )
            )
            for service in services
        ]


def message(body, topic, **metadata):
    return Message(topic, stamp({**SHARED, **metadata}), body)


async def first(subscription):
    async with asyncio.timeout(20):
        (delivery, *_) = await subscription.receive()
    return delivery


async def queue_url(sqs, group, topic):
    return (await sqs.get_queue_url(QueueName=queue_name("", group, topic)))["QueueUrl"]


async def test_a_plain_client_reads_our_events(url):
    async with opened(url) as broker, plain(url, "sqs") as (sqs,):
        await broker.declare("plain.reads", group="their.group")
        sent = message(b'{"name": "Ada"}', "plain.reads", tenant="bbc")
        await broker.publish(sent)
        queue = await queue_url(sqs, "their.group", "plain.reads")
        assert queue.endswith("/their_group__plain_reads")
        reply = await sqs.receive_message(QueueUrl=queue, MessageAttributeNames=["All"], WaitTimeSeconds=5)
        (came,) = reply["Messages"]
        assert came["Body"] == '{"name": "Ada"}'
        values = {name: value["StringValue"] for name, value in came["MessageAttributes"].items()}
        assert json.loads(values.pop("ketch-headers")) == {"tenant": "bbc"}
        assert values == {name: value for name, value in sent.headers.items() if name != "tenant"}


async def test_a_body_that_is_no_text_is_in_base64_for_a_plain_client(url):
    async with opened(url) as broker, plain(url, "sqs") as (sqs,):
        await broker.declare("plain.binary", group="g")
        await broker.publish(message(b"\x00\xff", "plain.binary"))
        queue = await queue_url(sqs, "g", "plain.binary")
        reply = await sqs.receive_message(QueueUrl=queue, MessageAttributeNames=["All"], WaitTimeSeconds=5)
        (came,) = reply["Messages"]
        assert (came["Body"], came["MessageAttributes"]["ketch-encoding"]["StringValue"]) == ("AP8=", "base64")


async def test_we_read_the_events_of_a_plain_client_with_attributes_and_without(url):
    async with opened(url) as broker, plain(url, "sns", "sqs") as (sns, sqs):
        subscription = await broker.subscribe("plain.writes", group="g")
        arn = (await sns.create_topic(Name=topic_name("", "plain.writes")))["TopicArn"]
        await sns.publish(TopicArn=arn, Message="bare")
        delivery = await first(subscription)
        assert (delivery.message.body, dict(delivery.message.headers), delivery.attempt) == (b"bare", {}, 1)
        await subscription.settle([(delivery, Outcome.DONE)])
        attributes = {
            "ce-id": {"DataType": "String", "StringValue": "7"},
            "Count": {"DataType": "Number", "StringValue": "3"},
            "ketch-headers": {"DataType": "String", "StringValue": "no JSON"},
            "ketch-encoding": {"DataType": "String", "StringValue": "base64"},
        }
        queue = await queue_url(sqs, "g", "plain.writes")
        await sqs.send_message(QueueUrl=queue, MessageBody="no base64", MessageAttributes=attributes)
        delivery = await first(subscription)
        assert delivery.message.body == b"no base64"
        assert dict(delivery.message.headers) == {"ce-id": "7", "count": "3", "ketch-headers": "no JSON"}


async def test_an_event_of_many_headers_comes_through(url):
    """SNS drops what has more than ten attributes on its way to the queue."""
    async with opened(url) as broker, plain(url, "sqs") as (sqs,):
        await broker.declare("many.headers", group="g")
        metadata = {f"x-{number}": f"{number}" for number in range(40)}
        await broker.publish(message(b"\x00", "many.headers", **{"ce-partitionkey": "k", **metadata}))
        queue = await queue_url(sqs, "g", "many.headers")
        reply = await sqs.receive_message(QueueUrl=queue, MessageAttributeNames=["All"], VisibilityTimeout=0)
        assert len(reply["Messages"][0]["MessageAttributes"]) <= 10
        delivery = await first(await broker.subscribe("many.headers", group="g"))
        assert delivery.message.metadata == metadata
        assert delivery.message.key == "k"


@pytest.mark.parametrize(
    "body", [b"", b" ", b"-", b"a\r\nb", b"a\x00b", b"\xef\xbf\xbe", b"<&>\"'", "ü 🐍\n\t".encode(), b"\xed\xa0\x80"]
)
async def test_every_body_comes_through_though_only_text_of_xml_may(url, body):
    async with opened(url) as broker:
        subscription = await broker.subscribe("every.body", group=None)
        await broker.publish(message(body, "every.body", empty="", odd="\ufffe"))
        delivery = await first(subscription)
        assert delivery.message.body == body
        assert delivery.message.metadata == {"empty": "", "odd": "\ufffe"}


async def test_text_may_be_larger_than_what_needs_base64(url):
    largest = SqsBroker.capabilities.max_message_size
    async with opened(url) as broker:
        subscription = await broker.subscribe("large", group=None)
        for body in (bytes(largest), b"x" * (largest + 1)):
            await broker.publish(message(body, "large"))
            delivery = await first(subscription)
            assert delivery.message.body == body
            await subscription.settle([(delivery, Outcome.DONE)])
        with pytest.raises(MessageTooLarge, match="262144"):
            await broker.publish(message(b"x" * 262_144, "large"))
        await asyncio.gather(*(broker.publish(message(bytes(100_000), "large")) for _ in range(5)))


async def test_a_delivery_is_hidden_from_others_past_the_deadline(url):
    async with opened(f"{url}&visibility=2") as here, opened(f"{url}&visibility=2") as there:
        holder = await here.subscribe("held", group="g")
        await here.publish(message(b"x", "held"))
        delivery = await first(holder)
        other = await there.subscribe("held", group="g")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.5):
                await other.receive()
        await holder.settle([(delivery, Outcome.DONE)])
        await holder.close()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await other.receive()


async def test_what_was_deleted_behind_its_back_is_made_again(url, caplog):
    async with opened(url) as broker, plain(url, "sns", "sqs") as (sns, sqs):
        group = await broker.subscribe("vanishing", group="g")
        alone = await broker.subscribe("vanishing", group=None)
        await broker.publish(message(b"before", "vanishing"))
        for subscription in (group, alone):
            await subscription.settle([(await first(subscription), Outcome.DONE)])
        for queue in (await sqs.list_queues())["QueueUrls"]:
            if "vanishing" in queue:
                await sqs.delete_queue(QueueUrl=queue)
        await sns.delete_topic(TopicArn=(await sns.create_topic(Name="vanishing"))["TopicArn"])
        async with asyncio.timeout(20):
            while caplog.text.count("was made again") < 2:  # noqa: ASYNC110 - logging has no event
                await asyncio.sleep(0.05)
        await broker.publish(message(b"after", "vanishing"))
        for subscription in (group, alone):
            assert (await first(subscription)).message.body == b"after"


async def test_a_queue_that_its_topic_no_longer_leads_to_is_bound_again(url):
    async with opened(url) as broker, plain(url, "sns") as (sns,):
        subscription = await broker.subscribe("unbound", group="g")
        arn = (await sns.create_topic(Name="unbound"))["TopicArn"]
        for bound in (await sns.list_subscriptions_by_topic(TopicArn=arn))["Subscriptions"]:
            await sns.unsubscribe(SubscriptionArn=bound["SubscriptionArn"])
        await subscription._polls.renew()  # as it does every five minutes
        await broker.publish(message(b"x", "unbound"))
        assert (await first(subscription)).message.body == b"x"


async def test_a_queue_of_somebody_elses_settings_is_taken_as_it_is(url):
    async with opened(url) as broker, plain(url, "sqs") as (sqs,):
        attributes = {"VisibilityTimeout": "77"}
        queue = (await sqs.create_queue(QueueName=queue_name("", "g", "theirs"), Attributes=attributes))["QueueUrl"]
        subscription = await broker.subscribe("theirs", group="g")
        reply = await sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])
        assert reply["Attributes"]["VisibilityTimeout"] == "77"
        assert "sns.amazonaws.com" in reply["Attributes"]["Policy"]
        await broker.publish(message(b"x", "theirs"))
        assert (await first(subscription)).message.body == b"x"


async def test_the_queue_of_a_subscription_alone_goes_with_it(url):
    async with plain(url, "sns", "sqs") as (sns, sqs):
        async with opened(url) as broker:
            await broker.subscribe("alone", group=None)
            assert (await sqs.list_queues(QueueNamePrefix=lone_prefix("") + "alone")).get("QueueUrls")
        assert not (await sqs.list_queues(QueueNamePrefix=lone_prefix("") + "alone")).get("QueueUrls")
        arn = (await sns.create_topic(Name="alone"))["TopicArn"]
        assert (await sns.list_subscriptions_by_topic(TopicArn=arn))["Subscriptions"] == []


async def test_a_crashed_process_s_queue_is_removed_when_it_has_been_silent_for_long(url):
    async with opened(url) as broker, plain(url, "sns", "sqs") as (sns, sqs):
        left = await place.declare(broker._aws, "left", lone_name("", "left", "1"), alone=True)
        lives = await place.declare(broker._aws, "left", lone_name("", "left", "2"), alone=True)
        silent = str(int(time.time() - leftovers.AGE - 10))
        await sqs.tag_queue(QueueUrl=left.queue, Tags={place.ALIVE: silent})
        await leftovers.remove_leftovers(broker._aws)
        found = (await sqs.list_queues(QueueNamePrefix=lone_prefix("") + "left"))["QueueUrls"]
        assert [name.rpartition("/")[2] for name in found] == [lives.queue.rpartition("/")[2]]
        arn = (await sns.create_topic(Name="left"))["TopicArn"]
        bound = (await sns.list_subscriptions_by_topic(TopicArn=arn))["Subscriptions"]
        assert [one["SubscriptionArn"] for one in bound] == [lives.subscription]
        await place.remove(broker._aws, lives)


async def test_publishes_of_a_moment_share_calls(url):
    async with opened(url) as broker:
        await broker.publish(message(b"x", "shared"))
        calls = []
        broker._aws._clients["sns"].meta.events.register("before-call.sns.PublishBatch", lambda **_: calls.append(1))
        await asyncio.gather(*(broker.publish(message(b"%d" % n, "shared")) for n in range(100)))
        assert len(calls) == 10


async def test_a_burst_is_shared_by_the_members_of_a_group_each_event_once(url):
    async with opened(f"{url}&timeout=30") as here, opened(f"{url}&timeout=30") as there:
        members = [await broker.subscribe("burst", group="g", prefetch=64) for broker in (here, there)]
        seen = []
        complete = asyncio.Event()

        async def collect(member):
            while True:
                batch = await member.receive()
                seen.extend(int(delivery.message.body) for delivery in batch)
                await member.settle([(delivery, Outcome.DONE) for delivery in batch])
                if len(seen) >= 1000:
                    complete.set()

        async with asyncio.timeout(50), asyncio.TaskGroup() as group:
            tasks = [group.create_task(collect(member)) for member in members]
            await asyncio.gather(*(here.publish(message(b"%d" % n, "burst")) for n in range(1000)))
            await complete.wait()
            for task in tasks:
                task.cancel()
        assert sorted(seen) == list(range(1000))


async def test_subscriptions_go_on_at_a_server_that_came_back_empty(caplog):
    async with moto_server() as server, opened(f"{server.url}&wait=1&timeout=20") as broker:
        subscription = await broker.subscribe("reborn", group="g")
        await broker.publish(message(b"before", "reborn"))
        held = await first(subscription)
        await server.restart()
        async with asyncio.timeout(20):
            while "was made again" not in caplog.text:  # noqa: ASYNC110 - logging has no event
                await asyncio.sleep(0.05)
        with pytest.raises(BrokerError):
            await subscription.settle([(held, Outcome.DONE)])
        await broker.publish(message(b"after", "reborn"))
        assert (await first(subscription)).message.body == b"after"
        assert (broker.trouble, subscription.trouble) == ("", "")


async def test_what_our_policy_does_not_allow_is_named():
    async with moto_server(free_calls=3) as server, plain(server.url, "iam") as (iam,):
        await iam.create_user(UserName="ada")
        await iam.put_user_policy(UserName="ada", PolicyName="p", PolicyDocument=json.dumps(POLICY))
        key = (await iam.create_access_key(UserName="ada"))["AccessKey"]
        address = Url.parse(server.url).address
        url = f"sqs://{key['AccessKeyId']}:{key['SecretAccessKey'].replace('/', '%2F').replace('+', '%2B')}@{address}"
        async with opened(f"{url}?region=us-east-1") as broker:
            with pytest.raises(SubscriptionRefused, match="sns:CreateTopic"):
                await broker.subscribe("topic", group="g")
            with pytest.raises(BrokerError, match="sns:CreateTopic"):
                await broker.publish(message(b"x", "topic"))
        with pytest.raises(BrokerError, match="credentials are refused") as raised:
            async with opened(f"sqs://nobody:s3cret@{address}?region=us-east-1"):
                pass
        assert "s3cret" not in str(raised.value)


async def test_a_server_that_is_not_there_is_named_without_the_secret(caplog):
    caplog.set_level(logging.INFO, "ketch")
    port = free_port()
    with pytest.raises(BrokerUnavailable, match=rf"{port}.*is it running") as raised:
        async with opened(f"sqs://ada:s3cret@127.0.0.1:{port}?region=us-east-1&connect_timeout=1"):
            pass
    assert "s3cret" not in f"{raised.value} {caplog.text}"


async def test_a_silent_port_is_unavailable_within_the_connect_timeout():
    hung = []

    async def silence(_reader, writer):
        hung.append(writer)

    silent = await asyncio.start_server(silence, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    try:
        with pytest.raises(BrokerUnavailable, match="is it running"):
            async with opened(f"sqs://ada:s3cret@127.0.0.1:{port}?region=us-east-1&connect_timeout=0.5"):
                pass
    finally:
        for writer in hung:
            writer.close()
        silent.close()
        await silent.wait_closed()


async def test_an_endpoint_is_trusted_by_its_certificate(moto, authority, stranger):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("server"))

    async def pipe(reader, writer):
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        except OSError:
            pass  # the other side has gone
        finally:
            writer.close()

    async def forward(reader, writer):
        inner, outer = await asyncio.open_connection("127.0.0.1", int(Url.parse(moto.url).address.partition(":")[2]))
        await asyncio.gather(pipe(reader, outer), pipe(inner, writer))

    async with await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context) as front:
        url = f"sqs://a:b@127.0.0.1:{front.sockets[0].getsockname()[1]}?region=us-east-1&wait=1"
        async with opened(f"{url}&tls_ca={authority.root}") as broker:
            subscription = await broker.subscribe("tls", group="g")
            await broker.publish(message(b"x", "tls"))
            assert (await first(subscription)).message.body == b"x"
        with pytest.raises(BrokerError, match=r"(?i)certificate"):
            async with opened(f"{url}&tls_ca={stranger.root}"):
                pass


async def test_without_a_region_it_asks_for_one(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BrokerError, match=r"\?region="):
        async with opened("sqs://key:secret@127.0.0.1:1"):
            pass


@pytest.mark.parametrize(
    "url",
    [
        "sqs://127.0.0.1:5000/queue",
        "sqs://127.0.0.1:port",
        "sqs://key@127.0.0.1:5000",
        "sqs://?visibility=0",
        "sqs://?visibility=1.5",
        "sqs://?pollers=many",
        "sqs://?prefix=a.b",
        "sqs://?timeout=0",
        "sqs://?tls_cert=c.pem",
    ],
)
def test_a_wrong_url_is_refused(url):
    with pytest.raises(ConfigurationError):
        SqsBroker.from_url(Url.parse(url))


def test_names_keep_their_looks_and_never_meet():
    assert topic_name("", "user.created") == "user_created"
    assert topic_name("prod-", "user.created") == "prod-user_created"
    assert queue_name("", "go.micro.srv.email", "user.created") == "go_micro_srv_email__user_created"
    odd = [
        "user_created",
        "user.created",
        "user..created",
        ".user.created",
        "user created",
        "Üser.created",
        "",
        "_",
        ".",
    ]
    assert len({topic_name("", topic) for topic in odd}) == len(odd)
    pairs = [("a", "b.c"), ("a.b", "c"), ("a_b", "c"), ("a__b", "c"), ("a", "b__c"), ("a.", "b"), ("", "a"), ("a", "")]
    pairs += [("g" * 79, "t"), ("g" * 79, "u"), ("g" * 80, "t"), ("g", "t" * 200), ("g", "t" * 201), ("_alone_t", "1")]
    names = {queue_name("", *pair) for pair in pairs} | {lone_name("", "t", "1")}
    assert len(names) == len(pairs) + 1
    assert all(len(name) <= 80 and name.replace("_", "").replace("-", "").isalnum() for name in names)
    assert not any(queue_name("", *pair).startswith(lone_prefix("")) for pair in pairs)
    assert len(topic_name("p" * 30, "t" * 400)) == 256
