# ruff: noqa: D102 - a test's name is its sentence
"""To whom it is delivered."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from .cases import Cases

if TYPE_CHECKING:
    from ...broker import Broker, Subscription
    from .stage import Stage


class Sharing(Cases):
    """Groups share, everyone else gets everything."""

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
        group = "g" if there.capabilities.groups else None
        subscriptions = [await there.subscribe(topic, group=group) for topic in topics]
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
            await self.event(complete, lambda: f"the members got {[len(share) for share in shares]} of {len(sent)}")
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
