# ruff: noqa: D102 - a test's name is its sentence
"""Stopping and closing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from ...errors import BrokerUnavailable
from .cases import Cases

if TYPE_CHECKING:
    from ...broker import Broker
    from .stage import Stage


class Closing(Cases):
    """What was taken can be seen through; everything ends."""

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

    async def test_receives_that_are_cancelled_all_the_time_lose_nothing(
        self, stage: Stage, here: Broker, there: Broker
    ) -> None:
        """Cancelled just when something comes, too."""
        subscription = await stage.subscribe(there)
        sent = [b"%d" % n for n in range(50)]
        publishing = asyncio.create_task(stage.publish(here, sent))
        came: list[bytes] = []
        async with asyncio.timeout(self.patience):
            while len(came) < len(sent):
                receiving = asyncio.create_task(subscription.receive())
                await asyncio.wait({receiving}, timeout=0.001)
                receiving.cancel()
                await asyncio.wait({receiving})
                if not receiving.cancelled():  # it was done before: what it returned is taken
                    batch = receiving.result()
                    came += (delivery.message.body for delivery in batch)
                    await stage.settle(subscription, batch)
        await publishing
        assert sorted(came) == sorted(sent)

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
        sent = [b"%d" % n for n in range(min(500, self.many))]
        await stage.publish(brief, sent)
        await brief.close()
        assert sorted(await stage.bodies(subscription, len(sent))) == sorted(sent)

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
