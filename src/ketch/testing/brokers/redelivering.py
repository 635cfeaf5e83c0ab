# ruff: noqa: D102 - a test's name is its sentence
"""What comes again, and what doesn't, at brokers that redeliver."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from ...broker import Broker, Delivery, Outcome
from .cases import Cases

if TYPE_CHECKING:
    from .stage import Stage

#: A program that takes what is there, says so, and settles nothing until it is killed.
_HOLDER = """
import asyncio, sys
from ketch.broker import Site
from ketch.plugins import Plugins
from ketch.url import Url

async def main(url, topic, group):
    plugins = Plugins()
    registry = plugins.load("Registry", "memory").from_url(Url("memory", "holder"))
    transport = plugins.load("Transport", "memory").from_url(Url("memory", "holder"))
    parsed = Url.parse(url)
    broker = plugins.load("Broker", parsed.name).from_url(parsed)
    await broker.open(Site("ketch.suite", "holder", registry, transport))
    subscription = await broker.subscribe(topic, group=group)
    print("ready", flush=True)
    while batch := await subscription.receive():
        print(len(batch), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def bodies(deliveries: list[Delivery]) -> list[bytes]:
    """Return the sorted bodies."""
    return sorted(delivery.message.body for delivery in deliveries)


class Redelivering(Cases):
    """What was settled is done, everything else comes again."""

    async def test_what_was_settled_does_not_come_again(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "redelivers")
        subscription = await stage.subscribe(there, group="g")
        await stage.publish(here, [b"a", b"b", b"c"])
        await stage.take(subscription, 3)
        await subscription.close()
        other = await stage.subscribe(await stage.broker(), group="g")
        assert await stage.silence(other, self.hold) == []

    async def test_what_was_given_back_comes_again(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "redelivers")
        subscription = await stage.subscribe(there, group="g")
        await stage.publish(here, [b"x"])
        for attempt in range(1, 4):
            (delivery,) = await stage.hold(subscription, 1)
            assert delivery.message.body == b"x"
            assert delivery.attempt == attempt or not here.capabilities.counts
            await subscription.settle([(delivery, Outcome.AGAIN)])
        assert await stage.bodies(subscription, 1) == [b"x"]
        assert await stage.silence(subscription, self.hold) == []

    async def test_what_comes_again_is_the_same_message(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "redelivers")
        subscription = await stage.subscribe(there, group="g")
        sent = stage.message(b"\x00\xff", tenant="bbc")
        await here.publish(sent)
        (delivery,) = await stage.hold(subscription, 1)
        await subscription.settle([(delivery, Outcome.AGAIN)])
        (came,) = await stage.take(subscription, 1)
        assert (came.topic, dict(came.headers), came.body) == (sent.topic, dict(sent.headers), sent.body)

    async def test_one_that_is_given_back_does_not_hold_up_the_others(
        self, stage: Stage, here: Broker, there: Broker
    ) -> None:
        """A poison message keeps coming; the ten others are handled once, meanwhile."""
        self.need(here, "redelivers")
        subscription = await stage.subscribe(there, group="g")
        await stage.publish(here, [b"poison", *(b"%d" % n for n in range(10))])
        done: list[bytes] = []
        poisoned = 0
        while len(done) < 10 or poisoned < 3:
            for delivery in await stage.hold(subscription, 1):
                poison = delivery.message.body == b"poison"
                await subscription.settle([(delivery, Outcome.AGAIN if poison else Outcome.DONE)])
                poisoned += poison
                if not poison:
                    done.append(delivery.message.body)
        assert sorted(done) == [b"%d" % n for n in range(10)]

    async def test_some_of_a_batch_may_be_given_back(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "redelivers")
        subscription = await stage.subscribe(there, group="g")
        await stage.publish(here, [b"%d" % n for n in range(10)])
        held = await stage.hold(subscription, 10)
        odd = [int(delivery.message.body) % 2 for delivery in held]
        await subscription.settle(
            [(d, Outcome.AGAIN if again else Outcome.DONE) for d, again in zip(held, odd, strict=True)]
        )
        assert sorted(await stage.bodies(subscription, 5)) == [b"1", b"3", b"5", b"7", b"9"]
        assert await stage.silence(subscription, self.hold) == []

    async def test_what_a_member_leaves_unsettled_goes_to_another(
        self, stage: Stage, here: Broker, there: Broker
    ) -> None:
        self.need(here, "redelivers", "groups")
        leaver = await stage.subscribe(there, group="g")
        await stage.publish(here, [b"a", b"b", b"c"])
        held = await stage.hold(leaver, 3)
        done = next(delivery for delivery in held if delivery.message.body == b"a")
        await leaver.settle([(done, Outcome.DONE)])
        await leaver.close()
        stayer = await stage.subscribe(await stage.broker(), group="g")
        assert sorted(await stage.bodies(stayer, 2)) == [b"b", b"c"]

    async def test_what_a_closed_broker_left_unsettled_comes_again(
        self, stage: Stage, here: Broker, there: Broker
    ) -> None:
        self.need(here, "redelivers", "groups")
        subscription = await stage.subscribe(there, group="g")
        await stage.publish(here, [b"a", b"b"])
        await stage.hold(subscription, 2)
        await there.close()
        other = await stage.subscribe(await stage.broker(), group="g")
        assert sorted(await stage.bodies(other, 2)) == [b"a", b"b"]

    async def test_what_a_killed_process_held_comes_again(self, stage: Stage, here: Broker, url: str) -> None:
        self.need(here, "redelivers", "groups")
        if not self.processes:
            pytest.skip("programs of several processes don't reach each other")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _HOLDER, url, stage.topic, "g", stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self.patience):
                assert await process.stdout.readline() == b"ready\n", "the process ended; its stderr says why"
                await stage.publish(here, [b"a", b"b", b"c"])
                held = 0
                while held < 3:
                    line = await process.stdout.readline()
                    assert line, f"the process ended when it held {held} of 3; its stderr says why"
                    held += int(line)
        finally:
            process.kill()
            await process.wait()
        other = await stage.subscribe(await stage.broker(), group="g")
        assert sorted(await stage.bodies(other, 3)) == [b"a", b"b", b"c"]

    async def test_a_delivery_in_hand_is_nobody_elses(self, stage: Stage, here: Broker, there: Broker) -> None:
        """It is held past the broker's deadline, and still nobody gets it, and it can be settled."""
        self.need(here, "redelivers", "groups")
        holder = await stage.subscribe(there, group="g")
        await stage.publish(here, [b"x"])
        (delivery,) = await stage.hold(holder, 1)
        other = await stage.subscribe(await stage.broker(), group="g")
        assert await stage.silence(other, self.hold) == []
        await holder.settle([(delivery, Outcome.DONE)])
        await holder.close()
        assert await stage.silence(other, self.hold) == []

    async def test_no_more_than_the_prefetch_is_in_hand(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "redelivers")
        subscription = await stage.subscribe(there, group="g", prefetch=10)
        await stage.publish(here, [b"%d" % n for n in range(40)])
        held = await stage.hold(subscription, 10)
        assert len(held) == 10
        assert await stage.silence(subscription, 0.2) == []
        await subscription.settle([(delivery, Outcome.DONE) for delivery in held])
        rest = await stage.bodies(subscription, 30)
        assert sorted([*bodies(held), *rest]) == sorted(b"%d" % n for n in range(40))

    async def test_settling_makes_room_for_who_waits(self, stage: Stage, here: Broker, there: Broker) -> None:
        """One task receives, another settles: as the consumer does it."""
        self.need(here, "redelivers")
        subscription = await stage.subscribe(there, group="g", prefetch=1)
        await stage.publish(here, [b"a", b"b"])
        (held,) = await stage.hold(subscription, 1)
        receiving = asyncio.create_task(stage.batch(subscription))
        await asyncio.wait({receiving}, timeout=0.1)
        assert not receiving.done(), "it holds more than its prefetch"
        await subscription.settle([(held, Outcome.DONE)])
        assert sorted([*bodies([held]), *bodies(await receiving)]) == [b"a", b"b"]

    async def test_attempts_are_counted_over_members(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "redelivers", "groups", "counts")
        first = await stage.subscribe(there, group="g")
        await stage.publish(here, [b"x"])
        (delivery,) = await stage.hold(first, 1)
        assert delivery.attempt == 1
        await first.close()
        (again,) = await stage.hold(await stage.subscribe(await stage.broker(), group="g"), 1)
        assert again.attempt >= 2

    async def test_groups_settle_apart(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "redelivers", "groups")
        one, two = [await stage.subscribe(there, group=name) for name in ("one", "two")]
        await stage.publish(here, [b"x"])
        (delivery,) = await stage.hold(one, 1)
        await one.settle([(delivery, Outcome.AGAIN)])
        assert await stage.bodies(two, 1) == [b"x"]
        assert await stage.silence(two, self.hold) == []
        assert await stage.bodies(one, 1) == [b"x"]

    async def test_what_was_taken_can_be_settled_after_stop(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "redelivers", "groups")
        subscription = await stage.subscribe(there, group="g")
        await stage.publish(here, [b"a", b"b"])
        held = await stage.hold(subscription, 2)
        await subscription.stop()
        await subscription.settle([(delivery, Outcome.DONE) for delivery in held])
        await subscription.close()
        other = await stage.subscribe(await stage.broker(), group="g")
        assert await stage.silence(other, self.hold) == []

    async def test_settling_nothing_is_no_error(self, stage: Stage, there: Broker) -> None:
        subscription = await stage.subscribe(there, group="g" if there.capabilities.groups else None)
        await subscription.settle([])

    async def test_everything_still_comes_under_a_lower_limit(self, stage: Stage, here: Broker, there: Broker) -> None:
        subscription = await stage.subscribe(there, group="g" if there.capabilities.groups else None)
        await subscription.limit(1)
        sent = [b"%d" % n for n in range(20)]
        await stage.publish(here, sent)
        assert sorted(await stage.bodies(subscription, 20)) == sorted(sent)
