# ruff: noqa: D102 - a test's name is its sentence
"""What every broker must do, as tests.

A plugin's author subclasses `BrokerSuite` in a test module:

    class TestPigeon(BrokerSuite):
        @pytest.fixture
        def url(self) -> str:
            return "pigeon://roof"

Cases that need what the plugin's `capabilities` don't declare are skipped and say so.
It needs pytest and pytest-asyncio: `pip install 'ketch[testing]'`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, ClassVar
from uuid import uuid4

import pytest
import pytest_asyncio

from ..broker import Broker, Delivery, Outcome, Site, Subscription
from ..errors import BrokerUnavailable, ConfigurationError, MessageTooLarge
from ..message import Message, event_headers, stamp
from ..plugins import Plugins
from ..url import Url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

_SHARED = event_headers(source="suite", type="ketch.suite.v1.Case", content_type="application/octet-stream")


class Stage:
    """Where a case plays: brokers that reach each other, and one topic of its own."""

    def __init__(self, make: Callable[[], Broker], transport: str, patience: float, stack: AsyncExitStack) -> None:
        self.topic = f"suite.{uuid4().hex}"
        self._make = make
        self._transport = transport
        self._world = uuid4().hex
        self._patience = patience
        self._stack = stack

    async def site(self) -> Site:
        """Return a program of its own, in the world of this case."""
        plugins = Plugins()
        registry = plugins.load("Registry", "memory").from_url(Url("memory", self._world))
        url = Url(self._transport, self._world if self._transport == "memory" else "")
        transport = plugins.load("Transport", self._transport).from_url(url)
        await self._stack.enter_async_context(registry)
        return Site("ketch.suite", uuid4().hex, registry, transport)

    def closed(self) -> Broker:
        """Return a broker that isn't open; it is closed at the end whatever the case does with it."""
        broker = self._make()
        self._stack.push_async_callback(broker.close)
        return broker

    async def broker(self) -> Broker:
        """Return an open broker."""
        site = await self.site()
        broker = self.closed()
        await broker.open(site)
        return broker

    async def subscribe(self, broker: Broker, topic: str = "", *, group: str | None = None) -> Subscription:
        """Subscribe, and wait until every publisher reaches it."""
        subscription = await broker.subscribe(topic or self.topic, group=group)
        await asyncio.sleep(broker.capabilities.subscribe_lag)
        return subscription

    def message(self, body: bytes = b"", topic: str = "", **metadata: str) -> Message:
        """Return a message as a publisher would make it."""
        return Message(topic or self.topic, stamp({**_SHARED, **metadata}), body)

    async def publish(self, broker: Broker, bodies: Iterable[bytes], topic: str = "") -> None:
        """Publish bodies, one after the other."""
        for body in bodies:
            await broker.publish(self.message(body, topic))

    async def batch(self, subscription: Subscription) -> list[Delivery]:
        """Receive and settle one batch."""
        async with asyncio.timeout(self._patience):
            batch = list(await subscription.receive())
        await subscription.settle([(delivery, Outcome.DONE) for delivery in batch])
        return batch

    async def take(self, subscription: Subscription, count: int) -> list[Message]:
        """Receive and settle until so many messages are there."""
        taken: list[Message] = []
        while len(taken) < count:
            try:
                batch = await self.batch(subscription)
            except TimeoutError:
                pytest.fail(f"{len(taken)} of {count} messages came within {self._patience:g} s")
            assert batch, "the subscription ended"
            taken += (delivery.message for delivery in batch)
        return taken

    async def bodies(self, subscription: Subscription, count: int) -> list[bytes]:
        """Take so many messages and return their bodies."""
        return [message.body for message in await self.take(subscription, count)]

    async def rest(self, subscription: Subscription) -> list[bytes]:
        """Stop, and return what else had come."""
        await subscription.stop()
        rest: list[bytes] = []
        while batch := await self.batch(subscription):
            rest += (delivery.message.body for delivery in batch)
        return rest


class BrokerSuite:
    """The promises of `ketch.broker.Broker`.

    Attributes:
        transport: the transport that the case's programs have, for brokers that use it.
        patience: seconds after which what was promised counts as broken.
        many: how many messages are "many".
    """

    pytestmark = pytest.mark.asyncio

    transport: ClassVar[str] = "memory"
    patience: ClassVar[float] = 20.0
    many: ClassVar[int] = 10_000

    @pytest.fixture
    def url(self) -> str:
        """Return the broker's URL; brokers of one URL reach each other."""
        raise NotImplementedError("override the fixture `url`: it returns the broker's URL")

    @pytest.fixture
    def make(self, url: str) -> Callable[[], Broker]:
        """Return a function that makes brokers, not open, that reach each other."""
        parsed = Url.parse(url)
        plugin: type[Broker] = Plugins().load("Broker", parsed.name)
        return lambda: plugin.from_url(parsed)

    @pytest_asyncio.fixture
    async def stage(self, make: Callable[[], Broker]) -> AsyncIterator[Stage]:
        """Set a case's stage."""
        async with AsyncExitStack() as stack:
            yield Stage(make, self.transport, self.patience, stack)

    @pytest_asyncio.fixture
    async def here(self, stage: Stage) -> Broker:
        """Return the publishing side's broker."""
        return await stage.broker()

    @pytest_asyncio.fixture
    async def there(self, stage: Stage) -> Broker:
        """Return the subscribing side's broker, another object than `here`."""
        return await stage.broker()

    def need(self, broker: Broker, *capabilities: str) -> None:
        """Skip the case if the broker doesn't declare these capabilities."""
        for name in capabilities:
            if not getattr(broker.capabilities, name):
                pytest.skip(f"{broker.name} doesn't declare {name!r}")

    # --- what arrives

    async def test_a_message_arrives_as_it_was_published(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        sent = stage.message(b"hello", **{"x-tenant": "bbc"})
        await here.publish(sent)
        (came,) = await stage.take(subscription, 1)
        assert (came.topic, dict(came.headers), came.body) == (sent.topic, dict(sent.headers), sent.body)

    async def test_the_attributes_of_the_event_are_there(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        sent = stage.message(b"x", tenant="bbc")
        await here.publish(sent)
        (came,) = await stage.take(subscription, 1)
        assert (came.id, came.type, came.source, came.time) == (sent.id, sent.type, sent.source, sent.time)
        assert came.content_type == "application/octet-stream"
        assert came.metadata == {"tenant": "bbc"}

    async def test_metadata_of_every_legal_name_arrives(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        names = ("a", "x-y", "x_y", "x.y", "1st", "traceparent", "partitionkey", "data", "id", "source")
        metadata = {name: f"value of {name}: a, b; c=d" for name in names} | {"long": "v" * 2000}
        await here.publish(stage.message(b"", **metadata))
        (came,) = await stage.take(subscription, 1)
        assert came.metadata == metadata

    async def test_unicode_in_headers_and_body_arrives(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        await here.publish(stage.message("größe 服务 🐍".encode(), where="Zürich 服务 🐍 50% %41"))
        (came,) = await stage.take(subscription, 1)
        assert came.body.decode() == "größe 服务 🐍"
        assert came.metadata == {"where": "Zürich 服务 🐍 50% %41"}

    async def test_an_empty_header_value_arrives(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        await here.publish(stage.message(b"x", blank="", last="y"))
        (came,) = await stage.take(subscription, 1)
        assert came.metadata == {"blank": "", "last": "y"}

    async def test_an_empty_body_arrives(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        await stage.publish(here, [b"", b"after"])
        assert sorted(await stage.bodies(subscription, 2)) == [b"", b"after"]

    async def test_a_body_of_every_byte_arrives(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        body = bytes(range(256)) * 4 + b"\r\n\r\nMSG x 1 0\r\n{"
        await stage.publish(here, [body])
        assert await stage.bodies(subscription, 1) == [body]

    async def test_a_large_body_arrives(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        body = bytes(range(251)) * 2000
        await stage.publish(here, [body, b"small", body])
        assert sorted(await stage.bodies(subscription, 3), key=len) == [b"small", body, body]

    async def test_a_body_over_the_limit_is_refused_and_the_broker_goes_on(
        self, stage: Stage, here: Broker, there: Broker
    ) -> None:
        self.need(here, "max_message_size")
        subscription = await stage.subscribe(there)
        with pytest.raises(MessageTooLarge):
            await here.publish(stage.message(bytes((here.capabilities.max_message_size or 0) + 1)))
        await stage.publish(here, [b"fits"])
        assert await stage.bodies(subscription, 1) == [b"fits"]

    async def test_what_the_receiver_got_is_its_own(self, stage: Stage, here: Broker, there: Broker) -> None:
        """One subscription's delivery may be marked without the others seeing it."""
        subscriptions = [await stage.subscribe(there) for _ in range(2)]
        await stage.publish(here, [b"x"])
        (one,) = await stage.batch(subscriptions[0])
        (two,) = await stage.batch(subscriptions[1])
        assert one is not two

    # --- to whom

    async def test_a_broker_hears_itself(self, stage: Stage, here: Broker) -> None:
        subscription = await stage.subscribe(here)
        await stage.publish(here, [b"x"])
        assert await stage.bodies(subscription, 1) == [b"x"]

    async def test_nobody_listening_is_no_error(self, stage: Stage, here: Broker) -> None:
        await stage.publish(here, [b"x", b"y"])

    async def test_what_was_published_before_is_not_delivered(self, stage: Stage, here: Broker, there: Broker) -> None:
        witness = await stage.subscribe(here)
        await stage.publish(here, [b"before"])
        assert await stage.bodies(witness, 1) == [b"before"]  # so it is past the broker, not on its way there
        subscription = await stage.subscribe(there)
        await stage.publish(here, [b"after"])
        assert await stage.bodies(subscription, 1) == [b"after"]
        assert await stage.rest(subscription) == []

    async def test_topics_are_apart(self, stage: Stage, here: Broker, there: Broker) -> None:
        topics = [f"{stage.topic}.{n}" for n in range(30)]
        subscriptions = [await there.subscribe(topic, group="g") for topic in topics]
        await asyncio.sleep(there.capabilities.subscribe_lag)
        for topic in topics:
            await stage.publish(here, [topic.encode()], topic)
        for topic, subscription in zip(topics, subscriptions, strict=True):
            (came,) = await stage.take(subscription, 1)
            assert (came.topic, came.body) == (topic, topic.encode())
        assert await asyncio.gather(*map(stage.rest, subscriptions)) == [[]] * len(topics)

    async def test_a_topic_is_no_prefix_of_another(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        await stage.publish(here, [b"longer"], stage.topic + ".more")
        await stage.publish(here, [b"own"])
        assert await stage.bodies(subscription, 1) == [b"own"]
        assert await stage.rest(subscription) == []

    async def test_without_a_group_everyone_gets_everything(self, stage: Stage, here: Broker) -> None:
        brokers = [await stage.broker() for _ in range(3)]
        subscriptions = [await broker.subscribe(stage.topic, group=None) for broker in brokers for _ in range(4)]
        await asyncio.sleep(here.capabilities.subscribe_lag)
        sent = [b"%d" % n for n in range(50)]
        await stage.publish(here, sent)
        for subscription in subscriptions:
            assert sorted(await stage.bodies(subscription, 50)) == sorted(sent)

    async def test_each_group_gets_each_message_once(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "groups")
        groups = [await stage.subscribe(there, group=name) for name in ("a", "b", "c")]
        alone = await stage.subscribe(there)
        sent = [b"%d" % n for n in range(20)]
        await stage.publish(here, sent)
        for subscription in (*groups, alone):
            assert sorted(await stage.bodies(subscription, 20)) == sorted(sent)
            assert await stage.rest(subscription) == []

    async def test_the_members_of_a_group_share(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "groups")
        other = await stage.broker()
        members = [await stage.subscribe(broker, group="g") for broker in (there, there, other)]
        sent = [b"%d" % n for n in range(300)]
        shares = await self._share(stage, here, members, sent)
        assert Counter(body for share in shares for body in share) == Counter(sent)
        assert all(shares), "a member got nothing"

    async def _share(
        self, stage: Stage, broker: Broker, members: list[Subscription], sent: list[bytes]
    ) -> list[list[bytes]]:
        """Publish, and return what each member got when all of it had come."""
        shares: list[list[bytes]] = [[] for _ in members]
        complete = asyncio.Event()

        async def collect(member: Subscription, share: list[bytes]) -> None:
            while True:
                share += (delivery.message.body for delivery in await stage.batch(member))
                if sum(map(len, shares)) >= len(sent):
                    complete.set()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(collect(m, s)) for m, s in zip(members, shares, strict=True)]
            await stage.publish(broker, sent)
            async with asyncio.timeout(self.patience):
                await complete.wait()
            for task in tasks:
                task.cancel()
        return shares

    async def test_a_member_that_stopped_leaves_its_share_to_the_others(
        self, stage: Stage, here: Broker, there: Broker
    ) -> None:
        self.need(here, "groups")
        leaver, stayer = [await stage.subscribe(there, group="g") for _ in range(2)]
        await leaver.stop()
        sent = [b"%d" % n for n in range(20)]
        await stage.publish(here, sent)
        assert sorted(await stage.bodies(stayer, 20)) == sorted(sent)

    # --- order, number, load

    async def test_order_is_kept(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "ordered")
        subscription = await stage.subscribe(there, group="g" if here.capabilities.groups else None)
        sent = [b"%d" % n for n in range(2000)]
        await stage.publish(here, sent)
        assert await stage.bodies(subscription, 2000) == sent

    async def test_nothing_comes_twice(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        sent = [b"%d" % n for n in range(500)]
        await stage.publish(here, sent)
        assert sorted(await stage.bodies(subscription, 500)) == sorted(sent)
        assert await stage.rest(subscription) == []

    async def test_many_publish_at_the_same_time(self, stage: Stage, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        brokers = [await stage.broker() for _ in range(4)]
        async with asyncio.TaskGroup() as group:
            for n in range(20):
                group.create_task(stage.publish(brokers[n % 4], [b"%d %d" % (n, i) for i in range(50)]))
        came = await stage.bodies(subscription, 1000)
        assert len(set(came)) == 1000
        if there.capabilities.ordered:
            for n in range(20):
                own = [body for body in came if body.startswith(b"%d " % n)]
                assert own == [b"%d %d" % (n, i) for i in range(50)]

    async def test_many_subscribe_at_the_same_time(self, stage: Stage, here: Broker, there: Broker) -> None:
        topics = [f"{stage.topic}.{n}" for n in range(50)]
        subscriptions = await asyncio.gather(*(there.subscribe(topic, group=None) for topic in topics))
        await asyncio.sleep(there.capabilities.subscribe_lag)
        await asyncio.gather(*(stage.publish(here, [b"x"], topic) for topic in topics))
        for subscription in subscriptions:
            assert await stage.bodies(subscription, 1) == [b"x"]

    async def test_messages_that_are_there_come_in_batches(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        await stage.publish(here, [b"%d" % n for n in range(1000)])
        last = await stage.subscribe(there)
        await stage.publish(here, [b"last"])
        await stage.take(last, 1)
        received = batches = 0
        while received < 1001:
            received += len(await stage.batch(subscription))
            batches += 1
        assert batches < 500

    async def test_one_that_takes_nothing_does_not_hold_up_the_others(
        self, stage: Stage, here: Broker, there: Broker
    ) -> None:
        await stage.subscribe(there)
        quick = await stage.subscribe(there)
        sent = [b"%d" % n for n in range(3000)]
        publishing = asyncio.create_task(stage.publish(here, sent))
        try:
            assert sorted(await stage.bodies(quick, 3000)) == sorted(sent)
        finally:
            await publishing

    async def test_a_tournament_of_two_groups(self, stage: Stage, here: Broker, there: Broker) -> None:
        """Many messages, two publishers, two groups of two members: each group gets each message, once."""
        self.need(here, "groups")
        groups = {name: [await stage.subscribe(b, group=name) for b in (here, there)] for name in ("red", "blue")}
        sent = [b"%d" % n for n in range(self.many)]
        seen = {name: Counter[bytes]() for name in groups}

        async def collect(name: str, member: Subscription) -> None:
            while True:
                seen[name].update(delivery.message.body for delivery in await stage.batch(member))
                if all(counter.total() >= self.many for counter in seen.values()):
                    complete.set()

        complete = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(collect(name, m)) for name, members in groups.items() for m in members]
            await asyncio.gather(stage.publish(here, sent[::2]), stage.publish(there, sent[1::2]))
            async with asyncio.timeout(self.patience):
                await complete.wait()
            for task in tasks:
                task.cancel()
        assert seen == {name: Counter(sent) for name in groups}

    # --- stopping and closing

    async def test_what_was_taken_can_be_received_after_stop(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription, witness = [await stage.subscribe(there) for _ in range(2)]
        await stage.publish(here, [b"a", b"b", b"c"])
        await stage.take(witness, 3)
        first = [delivery.message.body for delivery in await stage.batch(subscription)]
        assert sorted(first + await stage.rest(subscription)) == [b"a", b"b", b"c"]

    async def test_a_stopped_subscription_ends_for_ever(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        assert await stage.rest(subscription) == []
        await stage.publish(here, [b"late"])
        assert await stage.batch(subscription) == []
        assert await stage.batch(subscription) == []

    async def test_stop_wakes_who_receives(self, stage: Stage, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        receiving = asyncio.create_task(stage.batch(subscription))
        await asyncio.sleep(0)
        await subscription.stop()
        assert await receiving == []

    async def test_closing_the_broker_ends_who_receives(self, stage: Stage, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        receiving = asyncio.create_task(stage.batch(subscription))
        await asyncio.sleep(0)
        await there.close()
        assert await receiving == []

    async def test_a_receive_that_was_cancelled_loses_nothing(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        receiving = asyncio.create_task(subscription.receive())
        await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait({receiving})
        await stage.publish(here, [b"x"])
        assert await stage.bodies(subscription, 1) == [b"x"]

    async def test_stopping_and_closing_twice_is_no_error(self, stage: Stage, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        for act in (subscription.stop, subscription.stop, subscription.close, subscription.close):
            await act()
        await there.close()
        await there.close()
        await subscription.close()

    async def test_closing_what_was_never_opened_is_no_error(self, stage: Stage) -> None:
        await stage.closed().close()

    async def test_closing_one_subscription_leaves_the_others(self, stage: Stage, here: Broker, there: Broker) -> None:
        leaver, stayer = [await stage.subscribe(there) for _ in range(2)]
        await leaver.close()
        await stage.publish(here, [b"x"])
        assert await stage.bodies(stayer, 1) == [b"x"]

    async def test_close_sends_what_was_published(self, stage: Stage, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        brief = await stage.broker()
        sent = [b"%d" % n for n in range(500)]
        await stage.publish(brief, sent)
        await brief.close()
        assert sorted(await stage.bodies(subscription, 500)) == sorted(sent)

    async def test_it_opens_again_after_it_was_closed(self, stage: Stage, here: Broker) -> None:
        broker = stage.closed()
        for body in (b"first", b"second"):
            await broker.open(await stage.site())
            subscription = await stage.subscribe(broker)
            await stage.publish(here, [body])
            await stage.publish(broker, [body])
            assert await stage.bodies(subscription, 2) == [body, body]
            await broker.close()

    async def test_a_subscriber_that_comes_back_is_found_again(self, stage: Stage, here: Broker) -> None:
        for body in (b"first", b"second"):
            broker = await stage.broker()
            subscription = await stage.subscribe(broker, group="g" if broker.capabilities.groups else None)
            await stage.publish(here, [body])
            assert await stage.bodies(subscription, 1) == [body]
            await broker.close()

    async def test_a_broker_that_is_not_open_says_so(self, stage: Stage) -> None:
        broker = stage.closed()
        with pytest.raises(BrokerUnavailable):
            await broker.publish(stage.message(b"x"))
        with pytest.raises(BrokerUnavailable):
            await broker.subscribe(stage.topic, group=None)

    # --- what it declares

    async def test_an_unknown_option_is_refused(self, url: str) -> None:
        parsed = Url.parse(url)
        parsed.options["no-such-option"] = "1"
        with pytest.raises(ConfigurationError, match="no-such-option"):
            Plugins().load("Broker", parsed.name).from_url(parsed)

    async def test_its_name_is_the_one_it_is_chosen_by(self, stage: Stage, url: str) -> None:
        assert stage.closed().name == Url.parse(url).name

    async def test_its_location_holds_no_password(self, url: str, here: Broker) -> None:
        password = Url.parse(url).password
        assert not password or password not in here.location

    async def test_a_pattern_of_topics_gets_each_of_them(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "wildcards")
        subscription = await stage.subscribe(there, stage.topic + ".*")
        for name in ("a", "b"):
            await stage.publish(here, [name.encode()], f"{stage.topic}.{name}")
        came = await stage.take(subscription, 2)
        assert {(m.topic, m.body) for m in came} == {(f"{stage.topic}.a", b"a"), (f"{stage.topic}.b", b"b")}
