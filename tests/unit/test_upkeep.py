"""Upkeep: what is registered is written again in time, and after an absence of the backend."""

import asyncio
import logging

import pytest

from ketch.errors import RegistryError
from ketch.registries.upkeep import Upkeep
from ketch.registry import Instance

ONE, TWO = (Instance("svc", f"id-{number}", f"h:{number}") for number in (1, 2))


class Backend:
    """Takes what is written, unless it fails."""

    def __init__(self):
        self.error = None
        self.written = []
        self.news = asyncio.Event()
        self.slow = asyncio.Event()
        self.slow.set()

    async def write(self, instances):
        await self.slow.wait()
        self.written.append(tuple(instances) if self.error is None else self.error)
        self.news.set()
        if self.error is not None:
            raise self.error

    async def next(self):
        async with asyncio.timeout(10):
            await self.news.wait()
        self.news.clear()
        return self.written[-1]


@pytest.fixture
def backend():
    return Backend()


@pytest.fixture
async def keep(backend):
    made = []

    def make(every):
        made.append(Upkeep(backend.write, every, "there"))
        return made[-1]

    yield make
    for upkeep in made:
        await upkeep.close()


async def test_what_is_added_is_written_at_once_and_again_in_time(backend, keep):
    upkeep = keep(0.02)
    await upkeep.add(ONE)
    assert backend.written == [(ONE,)]
    await upkeep.add(TWO)
    assert (TWO,) in backend.written
    backend.news.clear()
    assert await backend.next() == (ONE, TWO)
    assert await backend.next() == (ONE, TWO)


async def test_what_cannot_be_written_is_an_error_and_not_kept(backend, keep):
    upkeep = keep(0.02)
    await upkeep.add(ONE)
    backend.error = RegistryError("no")
    with pytest.raises(RegistryError):
        await upkeep.add(TWO)
    backend.error = None
    backend.news.clear()
    assert await backend.next() == (ONE,)
    assert list(upkeep.held) == [ONE.id]


async def test_a_record_that_cannot_be_replaced_stays_as_it_was(backend, keep):
    upkeep = keep(60)
    await upkeep.add(ONE)
    backend.error = RegistryError("no")
    with pytest.raises(RegistryError):
        await upkeep.add(Instance("svc", ONE.id, "h:9"))
    assert upkeep.held == {ONE.id: ONE}


async def test_renewals_that_fail_are_tried_again_soon_and_told_of_once(backend, keep, caplog):
    caplog.set_level(logging.INFO, "ketch.registry")
    upkeep = keep(2.0)
    await upkeep.add(ONE)
    backend.news.clear()
    backend.error = RegistryError("gone")
    upkeep.renew_now()
    for _ in range(3):
        await backend.next()
    assert "there" in upkeep.trouble
    assert "gone" in upkeep.trouble
    backend.error = None
    assert await backend.next() == (ONE,)
    async with asyncio.timeout(10):
        while upkeep.trouble:  # noqa: ASYNC110 - a property, as a health check reads it
            await asyncio.sleep(0.005)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_renewing_at_once_waits_for_no_timer(backend, keep):
    upkeep = keep(3600)
    await upkeep.add(ONE)
    backend.news.clear()
    upkeep.renew_now()
    assert await backend.next() == (ONE,)


async def test_what_is_dropped_is_not_written_again_even_if_a_renewal_was_under_way(backend, keep):
    upkeep = keep(3600)
    await upkeep.add(ONE)
    await upkeep.add(TWO)
    backend.slow.clear()
    upkeep.renew_now()
    await asyncio.sleep(0.01)

    async def drop():
        async with upkeep.lock:
            del upkeep.held[ONE.id]
            backend.written.append("dropped")

    dropping = asyncio.ensure_future(drop())
    await asyncio.sleep(0.01)
    assert "dropped" not in backend.written
    backend.slow.set()
    await dropping
    backend.news.clear()
    upkeep.renew_now()
    assert await backend.next() == (TWO,)
    assert backend.written[-2:] == ["dropped", (TWO,)]


async def test_nothing_is_written_when_nothing_is_held(backend, keep):
    upkeep = keep(0.01)
    await upkeep.add(ONE)
    async with upkeep.lock:
        upkeep.held.clear()
    before = len(backend.written)
    await asyncio.sleep(0.1)
    assert len(backend.written) == before


async def test_close_returns_what_was_held_and_writes_no_more(backend, keep):
    upkeep = keep(0.01)
    await upkeep.add(ONE)
    assert await upkeep.close() == (ONE,)
    before = len(backend.written)
    await asyncio.sleep(0.05)
    assert len(backend.written) == before
    assert await upkeep.close() == ()


async def test_close_returns_what_was_just_being_added(backend, keep):
    """Or nobody would take its record away."""
    before = asyncio.all_tasks()
    upkeep = keep(3600)
    backend.slow.clear()
    adding = asyncio.ensure_future(upkeep.add(ONE))
    await asyncio.sleep(0.01)
    closing = asyncio.ensure_future(upkeep.close())
    await asyncio.sleep(0.01)
    backend.slow.set()
    await adding
    assert await closing == (ONE,)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("bug", [ZeroDivisionError, asyncio.CancelledError])
async def test_a_bug_of_a_plugin_is_logged_and_renewals_go_on(backend, keep, caplog, bug):
    upkeep = keep(0.02)
    await upkeep.add(ONE)
    backend.error = bug("oh")
    backend.news.clear()
    await backend.next()
    backend.error = None
    assert await backend.next() == (ONE,)
    assert bug.__name__ in caplog.text
