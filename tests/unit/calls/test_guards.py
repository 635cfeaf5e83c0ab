"""Budget, breaker, bulkhead, hedging: what keeps failures from spreading."""

import asyncio
from time import monotonic
from types import SimpleNamespace

import pytest

from ketch.calling import breaker as breaker_module
from ketch.calling.breaker import Breaker
from ketch.calling.budget import Budget
from ketch.calling.bulkhead import Bulkhead
from ketch.calling.hedging import Hedging
from ketch.errors import DeadlineExceeded, ResourceExhausted, Unreachable


def taken(budget, calls, tries=10_000):
    return sum(budget.take(calls) for _ in range(tries))


def test_a_client_that_makes_few_calls_may_retry_some():
    assert taken(Budget(0.2), 1) == 10


def test_retries_are_a_share_of_the_calls():
    budget = Budget(0.2)
    taken(budget, 0)
    assert sum(budget.take(calls) for calls in range(1, 1001)) == 200


def test_what_was_not_used_is_saved_up_to_a_limit():
    assert taken(Budget(0.2), 1_000_000) == 30


def test_without_a_budget_nothing_is_retried():
    assert taken(Budget(0), 1000) == 0


@pytest.fixture
def clock(monkeypatch):
    time = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(breaker_module, "monotonic", lambda: time.now)
    return time


def trip(breaker, calls=0):
    for number in range(1, 21):
        breaker.failed(calls + number)


@pytest.mark.usefixtures("clock")
def test_a_breaker_opens_when_most_calls_fail():
    breaker = Breaker("svc", 0.5)
    trip(breaker)
    assert breaker.open


@pytest.mark.usefixtures("clock")
def test_a_few_failures_among_many_calls_do_not_open_it():
    breaker = Breaker("svc", 0.5)
    for number in range(1, 1000):
        breaker.failed(number * 3)
    assert not breaker.open


@pytest.mark.usefixtures("clock")
def test_a_handful_of_failures_does_not_open_it():
    breaker = Breaker("svc", 0.5)
    for number in range(1, 20):
        breaker.failed(number)
    assert not breaker.open


def test_old_failures_are_forgotten(clock):
    breaker = Breaker("svc", 0.5)
    for number in range(1, 100):
        breaker.failed(number)
        clock.now += 1
        assert not breaker.open


def test_an_open_one_lets_a_call_through_now_and_then(clock):
    breaker = Breaker("svc", 0.5)
    trip(breaker)
    with pytest.raises(Unreachable, match="svc: too many calls had no answer"):
        breaker.check()
    clock.now += 0.6
    breaker.check()
    with pytest.raises(Unreachable):
        breaker.check()
    clock.now += 1.1
    breaker.check()


def test_it_closes_when_a_call_is_answered_and_opens_again_only_for_new_failures(clock):
    breaker = Breaker("svc", 0.5)
    trip(breaker)
    clock.now += 1
    breaker.check()
    breaker.answered()
    breaker.failed(30)
    assert not breaker.open


def test_it_can_be_switched_off():
    breaker = Breaker("svc", 0)
    trip(breaker)
    assert not breaker.open


async def test_a_bulkhead_lets_so_many_in_and_the_others_wait_in_order():
    bulkhead = Bulkhead("svc", 2, 10)
    await bulkhead.enter(None)
    await bulkhead.enter(None)
    order = []

    async def wait(name):
        await bulkhead.enter(None)
        order.append(name)

    waiting = [asyncio.create_task(wait(name)) for name in "abc"]
    await asyncio.sleep(0)
    assert order == []
    bulkhead.leave()
    bulkhead.leave()
    await asyncio.gather(*waiting[:2])
    assert order == ["a", "b"]
    bulkhead.leave()
    await waiting[2]
    bulkhead.leave()
    bulkhead.leave()
    assert await bulkhead.enter(3.0) == 3.0


async def test_more_may_not_wait_than_are_allowed_to():
    bulkhead = Bulkhead("svc", 1, 1)
    await bulkhead.enter(None)
    waiting = asyncio.create_task(bulkhead.enter(None))
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted, match="max_in_flight"):
        await bulkhead.enter(None)
    bulkhead.leave()
    await waiting


async def test_who_waits_does_so_until_its_deadline_and_its_place_is_not_lost():
    bulkhead = Bulkhead("svc", 1, 5)
    await bulkhead.enter(None)
    with pytest.raises(DeadlineExceeded):
        await bulkhead.enter(0.01)
    cancelled = asyncio.create_task(bulkhead.enter(None))
    await asyncio.sleep(0)
    cancelled.cancel()
    bulkhead.leave()  # it may have been given the place already
    await asyncio.gather(cancelled, return_exceptions=True)
    assert await asyncio.wait_for(bulkhead.enter(5.0), 5) is not None


class Call:
    def __init__(self, began):
        self.began = began
        self.done = False
        self.hedged = asyncio.Event()

    def hedge(self):
        self.hedged.set()


async def test_a_call_that_takes_too_long_is_hedged_and_one_that_is_done_is_not():
    hedging = Hedging(0.02)
    done, slow = Call(monotonic()), Call(monotonic())
    hedging.watch(done)
    hedging.watch(slow)
    done.done = True
    await asyncio.wait_for(slow.hedged.wait(), 5)
    assert not done.hedged.is_set()
    hedging.close()


async def test_what_takes_too_long_is_learnt_from_the_calls():
    hedging = Hedging(None)
    assert hedging.delay == 0.5
    for _ in range(50):
        hedging.took(0.001)
    assert hedging.delay == 0.05
    for _ in range(50):
        hedging.took(1.0)
    assert hedging.delay > 1.0
