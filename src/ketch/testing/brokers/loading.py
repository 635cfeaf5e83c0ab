# ruff: noqa: D102 - a test's name is its sentence
"""Order, number and load."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from .cases import Cases

if TYPE_CHECKING:
    from ...broker import Broker, Subscription
    from .stage import Stage


class Loading(Cases):
    """Nothing is lost, doubled or mixed up, however much it is."""

    async def test_order_is_kept(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "ordered")
        subscription = await stage.subscribe(there, group="g" if here.capabilities.groups else None)
        sent = [b"%d" % n for n in range(min(2000, self.many))]
        await stage.publish(here, sent)
        assert await stage.bodies(subscription, len(sent)) == sent

    async def test_nothing_comes_twice(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        sent = [b"%d" % n for n in range(min(500, self.many))]
        await stage.publish(here, sent)
        assert sorted(await stage.bodies(subscription, len(sent))) == sorted(sent)
        assert await stage.rest(subscription) == []

    async def test_many_publish_at_the_same_time(self, stage: Stage, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        brokers = [await stage.broker() for _ in range(4)]
        each = min(50, max(1, self.many // 20))
        async with asyncio.TaskGroup() as group:
            for n in range(20):
                group.create_task(stage.publish(brokers[n % 4], [b"%d %d" % (n, i) for i in range(each)]))
        came = await stage.bodies(subscription, 20 * each)
        assert len(set(came)) == 20 * each, "some came twice, and others not yet"
        if there.capabilities.ordered:
            for n in range(20):
                own = [body for body in came if body.startswith(b"%d " % n)]
                assert own == [b"%d %d" % (n, i) for i in range(each)]

    async def test_many_subscribe_at_the_same_time(self, stage: Stage, here: Broker, there: Broker) -> None:
        topics = [f"{stage.topic}.{n}" for n in range(50)]
        subscriptions = await asyncio.gather(*(there.subscribe(topic, group=None) for topic in topics))
        await asyncio.sleep(there.capabilities.subscribe_lag)
        await asyncio.gather(*(stage.publish(here, [b"x"], topic) for topic in topics))
        for subscription in subscriptions:
            assert await stage.bodies(subscription, 1) == [b"x"]

    async def test_messages_that_are_there_come_in_batches(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there)
        count = min(1000, self.many)
        await stage.publish(here, [b"%d" % n for n in range(count)])
        last = await stage.subscribe(there)
        await stage.publish(here, [b"last"])
        await stage.take(last, 1)
        received = batches = 0
        while received < count + 1:
            received += len(await stage.batch(subscription))
            batches += 1
        assert batches < count / 2, f"{received} messages that were there came in {batches} batches"

    async def test_one_that_takes_nothing_does_not_hold_up_the_others(
        self, stage: Stage, here: Broker, there: Broker
    ) -> None:
        await stage.subscribe(there)
        quick = await stage.subscribe(there)
        sent = [b"%d" % n for n in range(min(3000, self.many))]
        publishing = asyncio.create_task(stage.publish(here, sent))
        try:
            assert sorted(await stage.bodies(quick, len(sent))) == sorted(sent)
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
            await self.event(complete, lambda: f"{ {name: seen[name].total() for name in seen} } of {self.many} came")
            for task in tasks:
                task.cancel()
        assert seen == {name: Counter(sent) for name in groups}

    async def test_publishing_that_was_cancelled_leaves_the_broker_in_order(
        self, stage: Stage, here: Broker, there: Broker
    ) -> None:
        """Whether the cancelled ones arrive is open; whole, once, and without the others losing anything, is not."""
        subscription = await stage.subscribe(there, group="g" if here.capabilities.groups else None)
        body = bytes(100_000)
        for number in range(10):
            publishing = asyncio.create_task(stage.publish(here, [b"cancelled %d " % number + body]))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            publishing.cancel()
            await asyncio.wait({publishing})
        await stage.publish(here, [b"last"])
        came: list[bytes] = []
        while b"last" not in came:
            came += await stage.bodies(subscription, 1)
        others = [other for other in came if other != b"last"]
        assert all(len(other) == len(b"cancelled 0 ") + len(body) for other in others)
        assert len(set(others)) == len(others)

    async def test_a_slow_consumer_gets_everything(self, stage: Stage, here: Broker, there: Broker) -> None:
        """It takes a while over each batch; what it doesn't take meanwhile waits."""
        subscription = await stage.subscribe(there, group="g" if here.capabilities.groups else None, prefetch=50)
        sent = [b"%d" % n for n in range(min(500, self.many))]
        await stage.publish(here, sent)
        came: list[bytes] = []
        while len(came) < len(sent):
            came += [delivery.message.body for delivery in await stage.batch(subscription)]
            await asyncio.sleep(0.01)
        assert sorted(came) == sorted(sent)
