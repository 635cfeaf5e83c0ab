"""The dead letters as `ketch dead` goes through them."""

from dataclasses import dataclass

import pytest

from ketch.broker import DEAD_LETTERS, Capabilities, Site
from ketch.brokers.memory import MemoryBroker
from ketch.cli.letters import Letters, chosen
from ketch.deadletter import DeadLetter
from ketch.message import Message


@dataclass
class Order:
    id: int


class Log(MemoryBroker):
    """A broker that settles up to a point, as a log does; here it only says so."""

    capabilities = Capabilities(redelivers=True, selective=False)


@pytest.fixture(params=[MemoryBroker, Log])
async def broker(request):
    broker = request.param(f"letters-{request.param.__name__}")
    await broker.open(Site("test", "1", None, None))
    await broker.declare(DEAD_LETTERS, group=DEAD_LETTERS)
    await broker.declare("order.placed", group="shop")
    for number in range(3):
        event = Message("order.placed", {"ce-id": f"id-{number}", "ce-source": "web"}, b"%d" % number)
        said = DeadLetter.of(event, "shop" if number else "other", "shop.ship", ValueError(f"no {number}"), 5)
        await broker.publish(said.letter(event, DEAD_LETTERS))
    yield broker
    await broker.close()


async def ids(broker):
    async with Letters(broker, DEAD_LETTERS, 0.05) as letters:
        found = []
        async for letter in letters.read():
            letters.keep(letter)
            found.append(letter.id)
    return sorted(found)


async def test_looking_at_them_leaves_them_there(broker):
    assert await ids(broker) == ["id-0", "id-1", "id-2"]
    assert await ids(broker) == ["id-0", "id-1", "id-2"]


async def test_some_are_dropped_and_the_others_stay(broker):
    async with Letters(broker, DEAD_LETTERS, 0.05) as letters:
        async for letter in letters.read():
            if letter.id == "id-1":
                await letters.drop(letter)
            else:
                letters.keep(letter)
    assert await ids(broker) == ["id-0", "id-2"]


async def test_a_replayed_one_is_published_and_no_letter_any_more(broker):
    async with Letters(broker, DEAD_LETTERS, 0.05) as letters:
        async for letter in letters.read():
            if letter.said.group == "shop":
                await letters.replay(letter)
            else:
                letters.keep(letter)
    assert await ids(broker) == ["id-0"]
    subscription = await broker.subscribe("order.placed", group="shop")
    came = [delivery.message for delivery in await subscription.receive()]
    assert [(message.id, message.body) for message in came] == [("id-1", b"1"), ("id-2", b"2")]
    assert {message.headers["ketch-only-group"] for message in came} == {"shop"}


async def test_they_are_chosen_by_id_topic_and_group(broker):
    async with Letters(broker, DEAD_LETTERS, 0.05) as letters:
        all_ = [letter async for letter in letters.read()]
        assert [letter.id for letter in all_ if chosen(letter, ["id-1"], None, None)] == ["id-1"]
        assert [letter.id for letter in all_ if chosen(letter, [], "order.placed", "other")] == ["id-0"]
        assert not [letter for letter in all_ if chosen(letter, [], "user.created", None)]


async def test_an_event_without_an_id_is_called_by_its_content(broker):
    said = DeadLetter.of(Message("t", {}, b"x"), "shop", "h", ValueError("no"), 1)
    await broker.publish(said.letter(Message("t", {}, b"x"), DEAD_LETTERS))
    first, second = await ids(broker), await ids(broker)
    assert first == second
    assert len(first) == 4
    assert all(first)
