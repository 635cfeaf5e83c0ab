"""Cases: what all parts of the suite share, fixtures and figures."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, ClassVar

import pytest
import pytest_asyncio

from ...plugins import Plugins
from ...url import Url
from .stage import Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ...broker import Broker
    from ..servers import Server


class Cases:
    """Where the cases get their brokers, and what a plugin may set.

    Attributes:
        transport: the transport that the case's programs have, for brokers that use it.
        patience: seconds after which what was promised counts as broken.
        many: how many messages are "many".
        hold: seconds for which a delivery is held longer than the broker's own deadline, should it have one; set such
            a deadline to a second by the URL.
        remembers: whether the server of the fixture `server` keeps what it has when it is killed.
        processes: whether programs of several processes reach each other by the URL alone.
    """

    pytestmark = pytest.mark.asyncio

    transport: ClassVar[str] = "memory"
    patience: ClassVar[float] = 20.0
    many: ClassVar[int] = 10_000
    hold: ClassVar[float] = 0.2
    remembers: ClassVar[bool] = True
    processes: ClassVar[bool] = True

    @pytest.fixture
    def url(self) -> str:
        """Return the broker's URL; brokers of one URL reach each other."""
        raise NotImplementedError("override the fixture `url`: it returns the broker's URL")

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is so that nobody tells us of; fail when that takes too long."""
        ended = time.monotonic() + self.patience
        while not true():
            assert time.monotonic() < ended, f"it wasn't so within {self.patience:g} s"
            await asyncio.sleep(0.01)

    async def event(self, event: asyncio.Event, state: Callable[[], str]) -> None:
        """Wait for an event; fail with the state of things when that takes too long."""
        try:
            async with asyncio.timeout(self.patience):
                await event.wait()
        except TimeoutError:
            raise AssertionError(f"after {self.patience:g} s: {state()}") from None

    @pytest.fixture
    def server(self) -> Server | None:
        """Return the server that the URL leads to, to be killed and started again; None where there is none."""
        return None

    @pytest.fixture
    def make(self, url: str) -> Callable[[], Broker]:
        """Return a function that makes brokers, not open, that reach each other."""
        parsed = Url.parse(url)
        plugin: type[Broker] = Plugins().load("Broker", parsed.name)
        return lambda: plugin.from_url(parsed)

    @pytest_asyncio.fixture
    async def stage(self, make: Callable[[], Broker]) -> AsyncIterator[Stage]:
        """Set a case's stage."""
        async with AsyncExitStack() as stack:
            yield Stage(make, self.transport, self.patience, stack)

    @pytest_asyncio.fixture
    async def here(self, stage: Stage) -> Broker:
        """Return the publishing side's broker."""
        return await stage.broker()

    @pytest_asyncio.fixture
    async def there(self, stage: Stage) -> Broker:
        """Return the subscribing side's broker, another object than `here`."""
        return await stage.broker()

    def need(self, broker: Broker, *capabilities: str) -> None:
        """Skip the case if the broker doesn't declare these capabilities."""
        for name in capabilities:
            if not getattr(broker.capabilities, name):
                pytest.skip(f"{broker.name} doesn't declare {name!r}")
