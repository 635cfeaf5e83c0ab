"""The mailbox: who offers is paced, then dropped; who receives gets everything in order."""

import asyncio
import logging

import pytest

from ketch.broker import Delivery
from ketch.errors import BrokerError
from ketch.mailbox import CAPACITY, CAPACITY_BYTES, Mailbox
from ketch.message import Message


def deliveries(*numbers, body=b""):
    return [Delivery(Message("topic", {"number": str(number)}, body)) for number in numbers]


def numbers(batch):
    return [int(delivery.message.headers["number"]) for delivery in batch]


@pytest.fixture
def left():
    return []


@pytest.fixture
def mailbox(left):
    async def leave():
        left.append(True)

    return Mailbox("topic", leave)


def fill(mailbox):
    some = deliveries(*range(256))
    for _ in range(CAPACITY // 256):
        assert mailbox.offer(some)
    assert not mailbox.offer(deliveries(0))


async def take(mailbox, count):
    taken = 0
    while taken < count:
        taken += len(await mailbox.receive())


async def test_deliveries_come_in_the_order_of_offering_however_they_were_grouped(mailbox):
    for group in ((1,), (2, 3), (), (4, 5, 6), tuple(range(7, 2000)), (2000,)):
        assert mailbox.offer(deliveries(*group))
    received = []
    while len(received) < 2000:
        received += numbers(await mailbox.receive())
    assert received == list(range(1, 2001))


async def test_small_offers_are_received_in_one_batch(mailbox):
    for number in range(100):
        mailbox.offer(deliveries(number))
    assert numbers(await mailbox.receive()) == list(range(100))


async def test_receive_waits_for_the_first_delivery(mailbox):
    waiting = asyncio.create_task(mailbox.receive())
    await asyncio.sleep(0)
    assert not waiting.done()
    mailbox.offer(deliveries(1))
    assert numbers(await waiting) == [1]


async def test_who_offers_to_a_full_mailbox_waits_for_a_healthy_consumer_and_nothing_is_dropped(mailbox):
    fill(mailbox)
    offering = asyncio.create_task(mailbox.offer_patiently(deliveries(7)))
    await asyncio.sleep(0)
    assert not offering.done()
    await take(mailbox, CAPACITY // 2)
    await offering
    assert mailbox.dropped == 0
    await take(mailbox, CAPACITY // 2)
    assert numbers(await mailbox.receive()) == [7]


async def test_all_who_wait_get_their_room(mailbox):
    fill(mailbox)
    offering = [asyncio.create_task(mailbox.offer_patiently(deliveries(*range(3000)))) for _ in range(4)]
    await asyncio.sleep(0)
    while not all(task.done() for task in offering):
        await mailbox.receive()
        await asyncio.sleep(0)
    assert mailbox.dropped == 0


async def test_who_offers_in_vain_drops_counts_and_says_so_once(mailbox, caplog):
    fill(mailbox)
    with caplog.at_level(logging.WARNING, "ketch.broker"):
        await asyncio.gather(*(mailbox.offer_patiently(deliveries(1, 2)) for _ in range(5)))
    assert mailbox.dropped == 10
    assert [record.message for record in caplog.records] == [
        "a subscriber of topic doesn't keep up; events are dropped for it until it does"
    ]


async def test_a_slow_mailbox_takes_again_when_half_of_it_was_received_and_says_what_was_lost(mailbox, caplog):
    fill(mailbox)
    await mailbox.offer_patiently(deliveries(1, 2, 3))
    caplog.clear()
    await take(mailbox, CAPACITY // 2)
    assert [record.message for record in caplog.records] == [
        "the subscriber of topic keeps up again; 3 events were dropped"
    ]
    fill_again = asyncio.create_task(mailbox.offer_patiently(deliveries(4)))
    await fill_again
    await take(mailbox, CAPACITY // 2)
    assert numbers(await mailbox.receive()) == [4]
    assert mailbox.dropped == 3


async def test_bytes_are_bounded_too(mailbox):
    megabyte = bytes(1024 * 1024)
    for number in range(CAPACITY_BYTES // len(megabyte)):
        assert mailbox.offer(deliveries(number, body=megabyte))
    assert not mailbox.offer(deliveries(0))
    await mailbox.receive()
    assert mailbox.offer(deliveries(0))


async def test_what_a_broker_keeps_beside_the_bodies_counts(mailbox):
    assert mailbox.offer(deliveries(1), CAPACITY_BYTES)
    assert not mailbox.offer(deliveries(2), 1)
    await mailbox.receive()
    assert mailbox.offer(deliveries(2), 1)


async def test_after_stop_what_was_taken_comes_and_then_nothing_for_ever(mailbox, left):
    mailbox.offer(deliveries(1, 2))
    await mailbox.stop()
    await mailbox.stop()
    assert left == [True]
    assert mailbox.offer(deliveries(3)), "who has not heard of it yet isn't held up"
    assert numbers(await mailbox.receive()) == [1, 2]
    assert [await mailbox.receive() for _ in range(2)] == [(), ()]


async def test_stop_wakes_who_receives(mailbox):
    waiting = asyncio.create_task(mailbox.receive())
    await asyncio.sleep(0)
    await mailbox.stop()
    assert await waiting == ()


async def test_what_comes_while_leaving_is_taken():
    async def leave():
        mailbox.offer(deliveries(2))

    mailbox = Mailbox("topic", leave)
    mailbox.offer(deliveries(1))
    await mailbox.stop()
    assert numbers(await mailbox.receive()) == [1, 2]


async def test_close_drops_what_was_not_received_and_frees_who_waits_to_offer(mailbox):
    fill(mailbox)
    offering = asyncio.create_task(mailbox.offer_patiently(deliveries(1)))
    await asyncio.sleep(0)
    await mailbox.close()
    await offering
    assert await mailbox.receive() == ()


async def test_a_lost_subscription_gives_what_it_has_and_then_raises(mailbox):
    mailbox.offer(deliveries(1))
    mailbox.fail(BrokerError("gone for good"))
    assert numbers(await mailbox.receive()) == [1]
    with pytest.raises(BrokerError, match="gone for good"):
        await mailbox.receive()
