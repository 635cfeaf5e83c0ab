# ruff: noqa: D102 - a test's name is its sentence
"""Past and future: events that wait, that come later, that are heard again; and order by key."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from ...broker import Broker, Outcome, Subscription
from .cases import Cases

if TYPE_CHECKING:
    from .stage import Stage

#: Seconds by which a broker's clock may run ahead of ours.
_CLOCK = 0.15


class Timing(Cases):
    """When events come."""

    # --- waiting

    async def test_events_wait_for_a_group_that_is_away(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "durable", "groups")
        await (await stage.subscribe(there, group="g")).close()
        await there.close()
        sent = [b"%d" % n for n in range(20)]
        await stage.publish(here, sent)
        back = await stage.subscribe(await stage.broker(), group="g")
        assert sorted(await stage.bodies(back, 20)) == sorted(sent)

    async def test_events_wait_for_a_group_that_was_declared(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "redelivers", "groups")
        await there.declare(stage.topic, group="g")
        await there.declare(stage.topic, group="g")
        await stage.publish(here, [b"a", b"b"])
        subscription = await stage.subscribe(there, group="g")
        assert sorted(await stage.bodies(subscription, 2)) == [b"a", b"b"]

    async def test_a_group_may_be_called_what_services_are_called(
        self, stage: Stage, here: Broker, there: Broker
    ) -> None:
        self.need(here, "groups")
        names = ["go.micro.srv.user", "go.micro.srv.user-2", "shop_v2.Orders", "a"]
        subscriptions = [await stage.subscribe(there, group=name) for name in names]
        await stage.publish(here, [b"x"])
        for subscription in subscriptions:
            assert await stage.bodies(subscription, 1) == [b"x"]

    async def test_a_topic_may_be_called_what_topics_are_called(
        self, stage: Stage, here: Broker, there: Broker
    ) -> None:
        for name in ("user.created", "Orders-v2.placed_at", "go.micro.srv.user", "plain"):
            topic = f"{stage.topic}.{name}"
            subscription = await stage.subscribe(there, topic, group="g" if there.capabilities.groups else None)
            await stage.publish(here, [b"x"], topic)
            (came,) = await stage.take(subscription, 1)
            assert came.topic == topic

    # --- the future

    async def test_an_event_may_be_published_for_later(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "max_delay")
        subscription = await stage.subscribe(there, group="g" if there.capabilities.groups else None)
        began = time.monotonic()
        await here.publish(stage.message(b"later", tenant="bbc"), delay=1.0)
        await stage.publish(here, [b"now"])
        assert await stage.bodies(subscription, 1) == [b"now"]
        (came,) = await stage.take(subscription, 1)
        assert (came.topic, came.body, came.metadata) == (stage.topic, b"later", {"tenant": "bbc"})
        assert time.monotonic() - began >= 1.0 - _CLOCK

    async def test_one_given_back_for_later_comes_later(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "delays_redelivery")
        subscription = await stage.subscribe(there, group="g")
        await stage.publish(here, [b"x"])
        (delivery,) = await stage.hold(subscription, 1)
        delivery.retry_after = 1.0
        given_back = time.monotonic()
        await subscription.settle([(delivery, Outcome.AGAIN)])
        await stage.publish(here, [b"y"])
        assert await stage.bodies(subscription, 1) == [b"y"]
        assert await stage.bodies(subscription, 1) == [b"x"]
        assert time.monotonic() - given_back >= 1.0 - _CLOCK

    # --- the past

    async def test_a_subscription_may_start_in_the_past(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "replay")
        await here.declare(stage.topic, group="witness")
        await stage.publish(here, [b"too early"])
        await asyncio.sleep(1.1)  # some brokers tell the time in seconds
        since = time.time()
        await asyncio.sleep(0.1)
        await stage.publish(here, [b"a", b"b"])
        alone = await there.subscribe(stage.topic, group=None, since=since)
        group = await there.subscribe(stage.topic, group="late", since=since)
        await stage.publish(here, [b"c"])
        for subscription in (alone, group):
            assert sorted(await stage.bodies(subscription, 3)) == [b"a", b"b", b"c"]

    async def test_a_subscription_may_start_at_the_beginning(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "replay")
        await here.declare(stage.topic, group="witness")
        sent = [b"%d" % n for n in range(100)]
        await stage.publish(here, sent)
        subscription = await there.subscribe(stage.topic, group=None, since=0.0)
        assert sorted(await stage.bodies(subscription, 100)) == sorted(sent)

    async def test_a_group_that_exists_goes_on_where_it_was(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "replay", "groups")
        subscription = await stage.subscribe(there, group="g")
        await stage.publish(here, [b"old"])
        assert await stage.bodies(subscription, 1) == [b"old"]
        await subscription.close()
        again = await there.subscribe(stage.topic, group="g", since=0.0)
        await stage.publish(here, [b"new"])
        assert await stage.bodies(again, 1) == [b"new"]

    # --- keys

    async def test_the_key_of_an_event_arrives(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        await stage.publish(here, [b"x"], key="user-7 ü")
        (came,) = await stage.take(subscription, 1)
        assert came.key == "user-7 ü"

    async def test_events_of_a_key_stay_in_order_over_members(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "keyed", "groups")
        members = [await stage.subscribe(broker, group="g") for broker in (there, await stage.broker())]
        keys, each = 8, 50
        seen: dict[bytes, list[int]] = {b"%d" % key: [] for key in range(keys)}
        complete = asyncio.Event()

        async def collect(member: Subscription) -> None:
            while True:
                for delivery in await stage.batch(member):
                    key, _, number = delivery.message.body.partition(b" ")
                    seen[key].append(int(number))
                if sum(map(len, seen.values())) >= keys * each:
                    complete.set()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(collect(member)) for member in members]
            for number in range(each):
                for key in range(keys):
                    await stage.publish(here, [b"%d %d" % (key, number)], key=str(key))
            await self.event(complete, lambda: f"{sum(map(len, seen.values()))} of {keys * each} came")
            for task in tasks:
                task.cancel()
        assert all(list(dict.fromkeys(numbers)) == list(range(each)) for numbers in seen.values())
