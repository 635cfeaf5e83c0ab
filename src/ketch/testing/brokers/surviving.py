# ruff: noqa: D102 - a test's name is its sentence
"""Outages: the server is killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING

import pytest

from ...broker import Broker, Outcome, Subscription
from ...errors import BrokerError
from .cases import Cases

if TYPE_CHECKING:
    from ..servers import Server
    from .stage import Stage


class Surviving(Cases):
    """It reconnects by itself, and the promise holds."""

    @pytest.fixture
    def outage(self, server: Server | None) -> Server:
        """Return the server, or skip the case."""
        if server is None:
            pytest.skip("the fixture `server` gives no server to kill")
        return server

    def need_memory(self) -> None:
        """Skip the case if the server keeps nothing when it is killed."""
        if not self.remembers:
            pytest.skip("the server keeps nothing when it is killed")

    async def test_it_goes_on_when_the_server_is_back(
        self, stage: Stage, here: Broker, there: Broker, outage: Server
    ) -> None:
        group = "g" if there.capabilities.groups else None
        subscriptions = [await stage.subscribe(there, group=group), await stage.subscribe(there)]
        await stage.publish(here, [b"before"])
        for subscription in subscriptions:
            assert await stage.bodies(subscription, 1) == [b"before"]
        await outage.restart()
        late = await self._until_heard(stage, here, subscriptions)
        assert all(late)

    async def _until_heard(self, stage: Stage, here: Broker, subscriptions: list[Subscription]) -> list[set[bytes]]:
        """Publish until every subscription hears it; each is given back what it heard."""
        heard: list[set[bytes]] = [set() for _ in subscriptions]

        async def listen(subscription: Subscription, into: set[bytes]) -> None:
            while not into:
                into.update(delivery.message.body for delivery in await stage.batch(subscription))

        async with asyncio.timeout(self.patience), asyncio.TaskGroup() as group:
            listening = [group.create_task(listen(s, h)) for s, h in zip(subscriptions, heard, strict=True)]
            number = 0
            while not all(task.done() for task in listening):
                with contextlib.suppress(BrokerError):
                    await stage.publish(here, [b"after %d" % number])
                number += 1
                await asyncio.sleep(0.05)
        return heard

    async def test_publishing_while_it_is_away_fails_within_its_time(
        self, stage: Stage, here: Broker, outage: Server
    ) -> None:
        await stage.publish(here, [b"x"])
        await outage.kill()
        try:
            async with asyncio.timeout(self.patience):
                with pytest.raises(BrokerError):
                    # What is on its way into a dead connection may still count as taken.
                    await stage.publish(here, itertools.repeat(b"y"))
        finally:
            await outage.start()

    async def test_it_says_that_it_is_in_trouble(self, stage: Stage, there: Broker, outage: Server) -> None:
        subscription = await stage.subscribe(there, group="g" if there.capabilities.groups else None)
        assert (there.trouble, subscription.trouble) == ("", "")
        await outage.kill()
        try:
            await self.until(lambda: bool(there.trouble or subscription.trouble))
        finally:
            await outage.start()
        await self.until(lambda: not (there.trouble or subscription.trouble))

    async def test_events_outlive_the_server(self, stage: Stage, here: Broker, there: Broker, outage: Server) -> None:
        self.need_memory()
        self.need(here, "durable", "groups")
        await (await stage.subscribe(there, group="g")).close()
        sent = [b"%d" % n for n in range(50)]
        await stage.publish(here, sent)
        await outage.restart()
        subscription = await self._subscribe(stage, there)
        assert sorted(set(await stage.bodies(subscription, 50))) == sorted(sent)

    async def test_what_was_in_hand_comes_again_or_is_settled(
        self, stage: Stage, here: Broker, there: Broker, outage: Server
    ) -> None:
        self.need(here, "durable", "groups", "redelivers")
        subscription = await stage.subscribe(there, group="g")
        await stage.publish(here, [b"x"])
        held = await stage.hold(subscription, 1)
        await outage.restart()
        with contextlib.suppress(BrokerError):  # then it comes again
            await subscription.settle([(delivery, Outcome.DONE) for delivery in held])
        await subscription.close()
        fresh = await self._subscribe(stage, there)
        await self._until_heard(stage, here, [fresh])

    async def test_nothing_is_lost_though_the_server_is_killed_under_load(
        self, stage: Stage, here: Broker, there: Broker, outage: Server
    ) -> None:
        """What `publish` took arrives, however often."""
        self.need_memory()
        self.need(here, "durable", "groups", "redelivers")
        subscription = await stage.subscribe(there, group="g")
        taken: set[bytes] = set()
        seen: set[bytes] = set()
        killed = asyncio.Event()

        async def publish() -> None:
            number = after = 0
            while after < 100:
                body = b"%d" % number
                number += 1
                with contextlib.suppress(BrokerError):
                    await stage.publish(here, [body])
                    taken.add(body)
                    after += killed.is_set()

        async def receive() -> None:
            while not (publishing.done() and taken <= seen):
                try:
                    batch = await subscription.receive()
                    seen.update(delivery.message.body for delivery in batch)
                    await subscription.settle([(delivery, Outcome.DONE) for delivery in batch])
                except BrokerError:
                    await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(publish())
            receiving = group.create_task(receive())
            await self.until(lambda: len(seen) >= 200)
            await outage.restart()
            killed.set()
            await publishing
            with contextlib.suppress(AssertionError):
                await self.until(lambda: taken <= seen)
            receiving.cancel()
        assert taken - seen == set(), f"of {len(taken)} that were taken; {subscription.trouble or 'no trouble'}"

    async def _subscribe(self, stage: Stage, broker: Broker) -> Subscription:
        """Subscribe, as soon as the broker has found its server again."""
        async with asyncio.timeout(self.patience):
            while True:
                try:
                    return await stage.subscribe(broker, group="g")
                except BrokerError:
                    await asyncio.sleep(0.1)
