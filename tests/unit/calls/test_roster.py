"""Roster and pool: what becomes of instances that fail, and of channels that nobody needs."""

import asyncio
import contextlib

from ketch import pool as pool_module
from ketch.calling.roster import Roster
from ketch.errors import Unreachable
from ketch.policy import DEFAULT, CallPolicy
from ketch.pool import Pool
from ketch.registry import Instance


class Channel:
    """Its probe fails as `fails` says, and its end waits for `closing`."""

    shared = False

    def __init__(self, *fails):
        self.fails = list(fails)
        self.closing = asyncio.Event()
        self.closing.set()
        self.closed = False

    async def unary(self, *_, **__):
        if self.fails:
            raise self.fails.pop(0)
        return b""

    async def close(self):
        await self.closing.wait()
        self.closed = True


async def test_a_transport_with_a_bug_does_not_leave_an_instance_alone_for_good():
    channels = {"a:1": Channel(RuntimeError("a bug")), "b:1": Channel()}
    policy = CallPolicy(eject_time=0.01).over(DEFAULT)
    roster = Roster("svc", lambda address, _: channels[address], policy, lambda instances: instances)
    roster.learn([Instance("svc", "a", "a:1"), Instance("svc", "b", "b:1")])
    bad, _ = roster.candidates
    roster.failed(bad, Unreachable("no"))
    assert bad.out
    async with asyncio.timeout(5):
        while bad.out:  # noqa: ASYNC110 - a test's wait
            await asyncio.sleep(0.01)
    assert not channels["a:1"].fails
    await roster.close()


async def test_an_address_that_comes_back_while_others_are_closed_keeps_its_channel(monkeypatch):
    monkeypatch.setattr(pool_module, "_LINGER", 0.01)
    used = set()

    class Transport:
        def connect(self, _address):
            return Channel()

    pool = Pool(Transport(), lambda: set(used))
    channels = {address: pool.channel(address) for address in ("a:1", "b:1")}
    for channel in channels.values():
        channel.closing.clear()
    pool.start()
    async with asyncio.timeout(5):
        while len(pool._channels) == 2:  # noqa: ASYNC110 - a test's wait
            await asyncio.sleep(0.005)
    ((address, _),) = pool._channels
    used.add(address)
    for channel in channels.values():
        channel.closing.set()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            while not channels[address].closed:  # noqa: ASYNC110 - a test's wait
                await asyncio.sleep(0.01)
    assert not channels[address].closed
    assert pool.channel(address) is channels[address]
    await pool.close()
