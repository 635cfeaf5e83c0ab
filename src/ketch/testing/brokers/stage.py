"""Stage: where a case plays."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from ...broker import PREFETCH, Broker, Delivery, Outcome, Site, Subscription
from ...message import KEY, Message, event_headers, stamp
from ...plugins import Plugins
from ...url import Url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AsyncExitStack

_SHARED = event_headers(source="suite", type="ketch.suite.v1.Case", content_type="application/octet-stream")


class Stage:
    """Where a case plays: brokers that reach each other, and one topic of its own."""

    def __init__(self, make: Callable[[], Broker], transport: str, patience: float, stack: AsyncExitStack) -> None:
        self.topic = f"suite.{uuid4().hex}"
        self._make = make
        self._transport = transport
        self._world = uuid4().hex
        self._patience = patience
        self._stack = stack

    async def site(self) -> Site:
        """Return a program of its own, in the world of this case."""
        plugins = Plugins()
        registry = plugins.load("Registry", "memory").from_url(Url("memory", self._world))
        url = Url(self._transport, self._world if self._transport == "memory" else "")
        transport = plugins.load("Transport", self._transport).from_url(url)
        await self._stack.enter_async_context(registry)
        return Site("ketch.suite", uuid4().hex, registry, transport)

    def closed(self) -> Broker:
        """Return a broker that isn't open; it is closed at the end whatever the case does with it."""
        broker = self._make()
        self._stack.push_async_callback(broker.close)
        return broker

    async def broker(self) -> Broker:
        """Return an open broker."""
        site = await self.site()
        broker = self.closed()
        await broker.open(site)
        return broker

    async def subscribe(
        self, broker: Broker, topic: str = "", *, group: str | None = None, prefetch: int = PREFETCH
    ) -> Subscription:
        """Subscribe, and wait until every publisher reaches it."""
        subscription = await broker.subscribe(topic or self.topic, group=group, prefetch=prefetch)
        await asyncio.sleep(broker.capabilities.subscribe_lag)
        return subscription

    def message(self, body: bytes = b"", topic: str = "", **metadata: str) -> Message:
        """Return a message as a publisher would make it."""
        return Message(topic or self.topic, stamp({**_SHARED, **metadata}), body)

    async def publish(self, broker: Broker, bodies: Iterable[bytes], topic: str = "", *, key: str = "") -> None:
        """Publish bodies, one after the other."""
        headers = {KEY: key} if key else {}
        for body in bodies:
            await broker.publish(self.message(body, topic, **headers))

    async def hold(self, subscription: Subscription, count: int) -> list[Delivery]:
        """Receive so many deliveries without settling them."""
        held: list[Delivery] = []
        while len(held) < count:
            try:
                async with asyncio.timeout(self._patience):
                    batch = await subscription.receive()
            except TimeoutError:
                pytest.fail(f"{len(held)} of {count} deliveries came within {self._patience:g} s")
            assert batch, f"the subscription ended after {len(held)} of {count} deliveries"
            held += batch
        return held

    async def silence(self, subscription: Subscription, seconds: float) -> list[Delivery]:
        """Return what comes within some seconds, unsettled: nothing, if all is well."""
        came: list[Delivery] = []
        try:
            async with asyncio.timeout(seconds):
                while batch := await subscription.receive():
                    came += batch
        except TimeoutError:
            pass
        return came

    async def batch(self, subscription: Subscription) -> list[Delivery]:
        """Receive and settle one batch."""
        try:
            async with asyncio.timeout(self._patience):
                batch = list(await subscription.receive())
        except TimeoutError:
            raise AssertionError(f"`receive` returned nothing within {self._patience:g} s") from None
        await self.settle(subscription, batch)
        return batch

    async def settle(self, subscription: Subscription, batch: Iterable[Delivery]) -> None:
        """Settle what is done."""
        done = [(delivery, Outcome.DONE) for delivery in batch]
        try:
            async with asyncio.timeout(self._patience):
                await subscription.settle(done)
        except TimeoutError:
            raise AssertionError(f"`settle` of {len(done)} did not return within {self._patience:g} s") from None

    async def take(self, subscription: Subscription, count: int) -> list[Message]:
        """Receive and settle until so many messages are there."""
        taken: list[Message] = []
        while len(taken) < count:
            try:
                batch = await self.batch(subscription)
            except AssertionError as error:
                raise AssertionError(f"{len(taken)} of {count} messages came, then: {error}") from None
            assert batch, f"the subscription ended after {len(taken)} of {count} messages"
            taken += (delivery.message for delivery in batch)
        return taken

    async def bodies(self, subscription: Subscription, count: int) -> list[bytes]:
        """Take so many messages and return their bodies."""
        return [message.body for message in await self.take(subscription, count)]

    async def rest(self, subscription: Subscription) -> list[bytes]:
        """Stop, and return what else had come."""
        await subscription.stop()
        rest: list[bytes] = []
        while batch := await self.batch(subscription):
            rest += (delivery.message.body for delivery in batch)
        return rest
