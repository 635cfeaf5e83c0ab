"""The driver's own faults, that ours makes up for."""

import asyncio

import pytest

from ketch.nats.config import Access
from ketch.nats.driver import Driver
from ketch.url import Url


async def ignore(*_):
    """Take a callback."""


async def test_trying_to_connect_ends_in_time_though_a_cancellation_is_dropped(monkeypatch):
    """As `asyncio.wait_for` does before Python 3.12, where it comes together with its result."""
    tries = []

    async def refused(_driver):
        tries.append(1)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if len(tries) < 3:
                raise ConnectionRefusedError from None
            raise

    monkeypatch.setattr(Driver, "_select_next_server", refused)
    driver = Driver(Access.of(Url.parse("nats://127.0.0.1:9?connect_timeout=0.1")), {})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10) as patience:
            await driver.join("test", error_cb=ignore)
    assert not patience.expired()
    await driver.leave()
    assert len(tries) == 3
