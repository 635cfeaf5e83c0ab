"""What follows from a failure: another try, the dead letters, or nothing."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from ketch import Reject, Retry, RetryPolicy, Service, Topic, context, testing
from ketch.broker import DEAD_LETTERS, Outcome
from ketch.brokers.memory import MemoryBroker
from ketch.deadletter import DeadLetter
from ketch.errors import BrokerUnavailable, CapabilityError, ConfigurationError
from ketch.message import Message


@dataclass
class Order:
    id: int
    user: str = ""


placed = Topic("order.placed", Order)
QUICK = RetryPolicy(backoff=0.01, jitter=0)


@pytest.fixture
def service():
    return Service("shop")


async def letters(app, count, topic=DEAD_LETTERS):
    """Take so many dead letters."""
    subscription = await app.client.options.broker.subscribe(topic, group=DEAD_LETTERS)
    taken = []
    async with asyncio.timeout(5):
        while len(taken) < count:
            batch = await subscription.receive()
            await subscription.settle([(delivery, Outcome.DONE) for delivery in batch])
            taken += [delivery.message for delivery in batch]
    await subscription.close()
    return taken


async def none_left(app):
    subscription = await app.client.options.broker.subscribe(DEAD_LETTERS, group=DEAD_LETTERS)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            pytest.fail(f"there is a dead letter: {await subscription.receive()}")


async def test_a_handler_that_fails_is_tried_again_until_it_succeeds(service, caplog):
    attempts, done = [], asyncio.Event()

    @service.subscribe(placed, retry=QUICK)
    async def ship(order: Order) -> None:
        attempts.append((order.id, context.current().attempt))
        if len(attempts) < 3:
            raise OSError("the carrier doesn't answer")
        done.set()

    async with testing.run(service) as app:
        await app.publish(placed, Order(7))
        await asyncio.wait_for(done.wait(), 5)
        await none_left(app)
    assert attempts == [(7, 1), (7, 2), (7, 3)]
    assert "try 2 of 5" in caplog.text
    assert "the carrier doesn't answer" in caplog.text


async def test_after_its_last_try_an_event_goes_to_the_dead_letters_with_its_story(service):
    @service.subscribe(placed, retry=RetryPolicy(attempts=3, backoff=0.001))
    async def ship(order: Order) -> None:
        raise LookupError(f"no address\nfor {order.user}")

    async with testing.run(service) as app:
        await app.publish(placed, Order(7, "Åsa"), metadata={"tenant": "bbc"})
        (letter,) = await letters(app, 1)
    said = DeadLetter.read(letter)
    assert (said.topic, said.group, said.attempts) == ("order.placed", "shop", 3)
    assert (said.reason, said.error) == ("no address for Åsa", "LookupError")
    assert said.handler.endswith("ship")
    assert 'raise LookupError(f"no address\\nfor {order.user}")' in said.trace
    assert said.trace.startswith("Traceback (most recent call last):\n")
    assert said.time.endswith("Z")
    assert letter.metadata == {"tenant": "bbc"}
    assert letter.body == b'{"id":7,"user":"\xc3\x85sa"}'
    assert letter.content_type == "application/json"


async def test_the_next_event_is_handled_after_one_that_could_not_be(service):
    done = []

    @service.subscribe(placed, retry=QUICK)
    async def ship(order: Order) -> None:
        if order.id == 1:
            raise ValueError("no")
        done.append(order.id)

    async with testing.run(service) as app:
        for number in (1, 2, 3):
            await app.publish(placed, Order(number))
        await letters(app, 1)
        while done != [2, 3]:  # noqa: ASYNC110 - a handful of turns of the loop
            await asyncio.sleep(0)


async def test_a_rejected_event_is_not_tried_again(service):
    tries = []

    @service.subscribe(placed)
    async def ship(order: Order) -> None:
        tries.append(order.id)
        raise Reject("we don't ship to islands")

    async with testing.run(service) as app:
        await app.publish(placed, Order(1))
        (letter,) = await letters(app, 1)
    assert tries == [1]
    assert DeadLetter.read(letter).reason == "we don't ship to islands"


async def test_a_handler_may_say_when_to_try_again(service):
    times, done = [], asyncio.Event()

    @service.subscribe(placed, retry=RetryPolicy(backoff=60))
    async def ship(order: Order) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            raise Retry("the carrier sleeps", after=0.05)
        done.set()

    async with testing.run(service) as app:
        await app.publish(placed, Order(1))
        await asyncio.wait_for(done.wait(), 5)
    assert times[1] - times[0] >= 0.045


async def test_a_body_that_cannot_be_decoded_is_dead_at_once(service):
    @service.subscribe(placed)
    async def ship(order: Order) -> None:
        pytest.fail("it must not be called")

    async with testing.run(service) as app:
        await app.publisher(placed)
        await app.client.options.broker.publish(Message("order.placed", {}, b"\xff\xfe"))
        (letter,) = await letters(app, 1)
    assert letter.body == b"\xff\xfe"
    assert DeadLetter.read(letter).error == "ketch.errors.CodecError"
    assert DeadLetter.read(letter).attempts == 1


@pytest.mark.parametrize(
    ("policy", "tries"),
    [
        (RetryPolicy(attempts=3, backoff=0.001, only=(OSError,)), 1),
        (RetryPolicy(attempts=3, backoff=0.001, never=(LookupError,)), 1),
        (RetryPolicy(attempts=3, backoff=0.001, only=(LookupError,)), 3),
        (RetryPolicy(attempts=1), 1),
    ],
)
async def test_the_policy_says_which_errors_are_worth_another_try(service, policy, tries):
    seen = []

    @service.subscribe(placed, retry=policy)
    async def ship(order: Order) -> None:
        seen.append(order)
        raise KeyError("x")

    async with testing.run(service) as app:
        await app.publish(placed, Order(1))
        await letters(app, 1)
    assert len(seen) == tries


async def test_through_the_broker_others_go_ahead_meanwhile(service):
    seen, done = [], asyncio.Event()

    @service.subscribe(placed, retry=RetryPolicy(backoff=0.1, jitter=0, in_place=False))
    async def ship(order: Order) -> None:
        seen.append((order.id, context.current().attempt))
        if seen == [(1, 1)]:
            raise OSError("later")
        if order.id == 1:
            done.set()

    async with testing.run(service) as app:
        await app.publish(placed, Order(1))
        await app.publish(placed, Order(2))
        await asyncio.wait_for(done.wait(), 5)
    assert seen == [(1, 1), (2, 1), (1, 2)]


async def test_through_the_broker_tries_are_counted_too(service):
    seen = []

    @service.subscribe(placed, retry=RetryPolicy(attempts=3, backoff=0.001, in_place=False))
    async def ship(order: Order) -> None:
        seen.append(context.current().attempt)
        raise OSError("never")

    async with testing.run(service) as app:
        await app.publish(placed, Order(1))
        await letters(app, 1)
    assert seen == [1, 2, 3]


async def test_with_one_at_a_time_order_is_kept_over_a_retry(service):
    seen, done = [], asyncio.Event()

    @service.subscribe(placed, retry=QUICK)
    async def ship(order: Order) -> None:
        seen.append(order.id)
        if seen == [1]:
            raise OSError("once")
        if order.id == 3:
            done.set()

    async with testing.run(service) as app:
        for number in (1, 2, 3):
            await app.publish(placed, Order(number))
        await asyncio.wait_for(done.wait(), 5)
    assert seen == [1, 1, 2, 3]


async def test_an_event_that_ends_its_process_each_time_is_set_aside_unhandled(service):
    @service.subscribe(placed, retry=RetryPolicy(deliveries=3))
    async def ship(order: Order) -> None:
        pytest.fail("it must not be called")

    broker = MemoryBroker("deadly")
    async with testing.run(broker=broker) as app:
        publisher = await app.publisher(placed)
        await broker.declare(placed.name, group="shop")
        await publisher.publish(Order(1))
        for _ in range(3):  # three processes that took it and were killed
            subscription = await broker.subscribe(placed.name, group="shop")
            await subscription.receive()
            await subscription.close()
        async with testing.run(service, broker=MemoryBroker("deadly")):
            (letter,) = await letters(app, 1)
    assert "4 times" in DeadLetter.read(letter).reason


async def test_at_most_once_a_failure_is_logged_and_the_next_event_is_taken(service, caplog):
    seen, done = [], asyncio.Event()

    @service.subscribe(placed)
    async def ship(order: Order) -> None:
        seen.append(order.id)
        if order.id == 1:
            raise OSError("no luck")
        done.set()

    async with testing.run(service, broker="direct") as app:
        publisher = await app.publisher(placed)
        await publisher.publish(Order(1))
        await publisher.publish(Order(2))
        await asyncio.wait_for(done.wait(), 5)
    assert seen == [1, 2]
    assert "no luck" in caplog.text
    assert "dropped" in caplog.text


async def test_at_most_once_too_a_policy_is_followed_in_place(service):
    seen, done = [], asyncio.Event()

    @service.subscribe(placed, retry=QUICK)
    async def ship(order: Order) -> None:
        seen.append(order.id)
        if len(seen) == 2:
            done.set()
        else:
            raise OSError("once")

    async with testing.run(service, broker="direct") as app:
        await app.publish(placed, Order(1))
        await asyncio.wait_for(done.wait(), 5)
    assert seen == [1, 1]


async def test_a_policy_that_the_broker_cannot_follow_refuses_to_start(service):
    @service.subscribe(placed, retry=RetryPolicy(in_place=False))
    async def ship(order: Order) -> None: ...

    with pytest.raises(CapabilityError, match=r"retried through the broker.*in_place=True.*Brokers that do: .*memory"):
        async with testing.run(service, broker="direct"):
            pytest.fail("it must not start")


@pytest.mark.parametrize(
    "figures", [{"attempts": 0}, {"backoff": -1}, {"factor": 0.5}, {"jitter": 2}, {"longest": -1}, {"deliveries": 0}]
)
def test_a_policy_that_makes_no_sense_is_refused(figures):
    with pytest.raises(ConfigurationError):
        RetryPolicy(**figures)


def test_backoff_grows_to_its_longest_and_jitter_shortens_it():
    policy = RetryPolicy(backoff=1, factor=2, longest=10, jitter=0)
    assert [policy.delay(n) for n in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert policy.delay(10_000) == 10
    jittered = [RetryPolicy(backoff=1, jitter=0.5).delay(1) for _ in range(200)]
    assert 0.5 <= min(jittered) < 0.7
    assert 0.8 < max(jittered) <= 1


class AwayForLetters(MemoryBroker):
    """A broker that doesn't take dead letters for a while."""

    refusals = 2

    async def publish(self, message, *, delay=0.0):
        if message.topic == DEAD_LETTERS and self.refusals:
            self.refusals -= 1
            raise BrokerUnavailable("it is away")
        await super().publish(message, delay=delay)


async def test_an_event_is_kept_until_the_broker_takes_its_dead_letter(service, caplog, monkeypatch):
    monkeypatch.setattr("ketch.consumer.handling._BURIAL", QUICK)

    @service.subscribe(placed)
    async def ship(order: Order) -> None:
        raise Reject("no")

    broker = AwayForLetters("away")
    async with testing.run(service, broker=broker) as app:
        await app.publish(placed, Order(1))
        assert len(await letters(app, 1)) == 1
    assert caplog.text.count("was not taken: it is away") == 2


@asynccontextmanager
async def two_groups(seen):
    """Two services that hear the same events; the first fails on its first one."""
    one, two = Service("one"), Service("two")

    @one.subscribe(placed, retry=RetryPolicy(attempts=1))
    async def fails_first(order: Order) -> None:
        seen.append("one")
        if seen.count("one") == 1:
            raise OSError("no")

    @two.subscribe(placed)
    async def succeeds(order: Order) -> None:
        seen.append("two")

    async with testing.run(one, two) as app:
        yield app


async def test_a_replayed_event_is_for_the_group_alone_that_gave_it_up():
    seen = []
    async with two_groups(seen) as app:
        await app.publish(placed, Order(1), metadata={"tenant": "bbc"})
        (letter,) = await letters(app, 1)
        again = DeadLetter.read(letter).replay(letter)
        assert (again.topic, again.id, again.metadata) == ("order.placed", letter.id, {"tenant": "bbc"})
        assert again.dedup_id != letter.dedup_id
        await app.client.options.broker.publish(again)
        async with asyncio.timeout(5):
            while seen.count("one") < 2:  # noqa: ASYNC110 - a few turns of the loop
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
    assert sorted(seen) == ["one", "one", "two"]


async def test_dead_letters_may_have_a_topic_of_their_own_or_none(service, caplog):
    @service.subscribe(placed, group="kept", dead_letters="shop.dead")
    async def keeps(order: Order) -> None:
        raise Reject("kept")

    @service.subscribe(placed, group="dropped", dead_letters=None)
    async def drops(order: Order) -> None:
        raise Reject("gone")

    async with testing.run(service) as app:
        await app.publish(placed, Order(1))
        (letter,) = await letters(app, 1, "shop.dead")
        assert DeadLetter.read(letter).reason == "kept"
        await none_left(app)
    assert "gone" in caplog.text
