"""memory: events within one process, through real queues; what tests and single programs need.

Brokers of the same URL (`memory://name`) in one process reach each other. Handlers never run inside `publish`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, ClassVar, Self

from ..broker import Broker, Capabilities, Delivery, Outcome, Site, Subscription
from ..errors import BrokerUnavailable, ConfigurationError, MessageTooLarge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..message import Message
    from ..url import Url

log = logging.getLogger("ketch.broker")

#: Messages that a subscription holds; publishing waits a little for room, then drops for this subscription alone.
_CAPACITY = 8192
_PATIENCE = 0.1
#: Most deliveries of one batch.
_BATCH = 512

_MAX_BODY = 64 * 1024 * 1024

_worlds: dict[str, _World] = {}


class _World:
    """The subscriptions of all open brokers of one name."""

    def __init__(self) -> None:
        self.users = 0
        self.everyone: dict[str, list[MemorySubscription]] = {}
        self.groups: dict[str, dict[str, deque[MemorySubscription]]] = {}

    def add(self, subscription: MemorySubscription) -> None:
        topic, group = subscription.topic, subscription.group
        if group is None:
            self.everyone.setdefault(topic, []).append(subscription)
        else:
            self.groups.setdefault(topic, {}).setdefault(group, deque()).append(subscription)

    def remove(self, subscription: MemorySubscription) -> None:
        topic, group = subscription.topic, subscription.group
        if group is None:
            members: list[MemorySubscription] | deque[MemorySubscription] = self.everyone.get(topic, [])
        else:
            members = self.groups.get(topic, {}).get(group, deque())
        if subscription in members:
            members.remove(subscription)

    def receivers(self, topic: str) -> list[MemorySubscription]:
        """Return who gets the next message: everyone without a group, and the next member of each group."""
        receivers = list(self.everyone.get(topic, ()))
        for members in self.groups.get(topic, {}).values():
            if members:
                receivers.append(members[0])
                members.rotate(-1)
        return receivers


class MemoryBroker(Broker):
    """Carries events within one process, at most once."""

    name = "memory"
    capabilities: ClassVar[Capabilities] = Capabilities(ordered=True, max_message_size=_MAX_BODY)

    def __init__(self, world: str = "") -> None:
        self._name = world
        self._world: _World | None = None
        self._subscriptions: set[MemorySubscription] = set()

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `memory://name`."""
        url.only()
        if url.path:
            raise ConfigurationError(f"memory has no path: {url}")
        return cls(url.address)

    @property
    def location(self) -> str:
        """The name."""
        return self._name

    async def open(self, site: Site) -> None:  # noqa: ARG002 - nothing of the program is needed
        """Join the others of the same name."""
        if self._world is None:
            self._world = _worlds.setdefault(self._name, _World())
            self._world.users += 1

    async def publish(self, message: Message) -> None:
        """Put the message into each receiver's queue."""
        world = self._joined()
        if len(message.body) > _MAX_BODY:
            raise MessageTooLarge(f"{len(message.body)} bytes are over memory's limit of {_MAX_BODY}")
        for subscription in world.receivers(message.topic):
            if not subscription.offer(message):
                await subscription.offer_later(message)

    async def subscribe(self, topic: str, *, group: str | None) -> Subscription:
        """Begin to collect a topic's messages."""
        subscription = MemorySubscription(topic, group, self._joined())
        self._subscriptions.add(subscription)
        return subscription

    async def close(self) -> None:
        """Close the subscriptions; the last to leave takes the name with it."""
        for subscription in self._subscriptions:
            await subscription.close()
        self._subscriptions.clear()
        world, self._world = self._world, None
        if world is not None:
            world.users -= 1
            if not world.users and _worlds.get(self._name) is world:
                del _worlds[self._name]

    def _joined(self) -> _World:
        if self._world is None:
            raise BrokerUnavailable("memory: the broker isn't open")
        return self._world


class MemorySubscription(Subscription):
    """One member's queue."""

    def __init__(self, topic: str, group: str | None, world: _World) -> None:
        self.topic = topic
        self.group = group
        self.dropped = 0
        self._world = world
        self._queue: deque[Message] = deque()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._slow = False
        self._stopped = False
        world.add(self)

    def offer(self, message: Message) -> bool:
        """Take a message in if there is room."""
        if self._stopped:
            return True
        if len(self._queue) >= _CAPACITY:
            return False
        self._queue.append(message)
        self._readable.set()
        return True

    async def offer_later(self, message: Message) -> None:
        """Wait a little for room, unless that was in vain before; without room the message is dropped."""
        if not self._slow:
            self._writable.clear()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._writable.wait()
            except TimeoutError:
                self._slow = True
                log.warning("memory: a subscriber of %s is too slow; events are dropped for it", self.topic)
        if not self.offer(message):
            self.dropped += 1

    async def receive(self) -> Sequence[Delivery]:
        """Return what is in the queue, up to a batch."""
        queue = self._queue
        while not queue and not self._stopped:
            self._readable.clear()
            await self._readable.wait()
        batch = [Delivery(queue.popleft()) for _ in range(min(len(queue), _BATCH))]
        if len(queue) < _CAPACITY // 2:
            self._slow = False
            self._writable.set()
        return batch

    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Nothing to do: at most once."""

    async def stop(self) -> None:
        """Collect no more."""
        self._stopped = True
        self._world.remove(self)
        self._readable.set()

    async def close(self) -> None:
        """Drop what is left."""
        await self.stop()
        self._queue.clear()
