"""The broker: a world of groups that all brokers of one name share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar, Self

from ...broker import PREFETCH, Broker, Capabilities, Site, Subscription
from ...errors import BrokerUnavailable, ConfigurationError, MessageTooLarge
from ...pattern import is_pattern, matches
from .group import Group, Member

if TYPE_CHECKING:
    from ...message import Message
    from ...url import Url

_MAX_BODY = 64 * 1024 * 1024

#: Seconds that publishing waits for room.
_PATIENCE = 5.0

_worlds: dict[str, _World] = {}


class _World:
    """The groups of all open brokers of one name."""

    def __init__(self) -> None:
        self.users = 0
        self.groups: dict[str, dict[str, Group]] = {}
        self.alone: dict[str, list[Group]] = {}
        self._patterns = 0

    def join(self, topic: str, group: str | None) -> Group:
        """Return a group, or one for a subscription alone."""
        known = topic in self.groups or topic in self.alone
        self._patterns += is_pattern(topic) and not known
        if group is not None:
            return self.groups.setdefault(topic, {}).setdefault(group, Group())
        alone = Group()
        self.alone.setdefault(topic, []).append(alone)
        return alone

    def receivers(self, topic: str) -> list[Group]:
        """Return all groups that get a topic's events."""
        names = [topic] if not self._patterns else [n for n in self.groups | self.alone if matches(n, topic)]
        found: list[Group] = []
        for name in names:
            found.extend(self.groups.get(name, {}).values())
            found.extend(self.alone.get(name, ()))
        return found

    def end(self) -> None:
        """Forget what was to come later."""
        for topic in self.groups | self.alone:
            for group in (*self.groups.get(topic, {}).values(), *self.alone.get(topic, ())):
                group.end()


class _Alone(Member):
    """A subscription without a group: its events go with it."""

    def __init__(self, world: _World, topic: str, group: Group, prefetch: int) -> None:
        super().__init__(group, prefetch)
        self._home = world.alone[topic]

    async def stop(self) -> None:
        """Take no more; there is nobody to leave it to."""
        if self._group in self._home:
            self._home.remove(self._group)
        await super().stop()


class MemoryBroker(Broker):
    """Carries events within one process, at least once: what was taken and not settled comes again.

    Brokers of the same URL (`memory://name`) in one process reach each other. Handlers never run inside `publish`.
    A group keeps its events, 65,536 of them or 64 MiB, until the last broker of the name is closed.
    """

    name = "memory"
    capabilities: ClassVar[Capabilities] = Capabilities(
        redelivers=True,
        ordered=True,
        counts=True,
        delays_redelivery=True,
        max_delay=7 * 86_400.0,
        wildcards=True,
        max_message_size=_MAX_BODY,
    )

    def __init__(self, world: str = "") -> None:
        self._name = world
        self._world: _World | None = None
        self._members: list[Member] = []

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

    async def publish(self, message: Message, *, delay: float = 0.0) -> None:
        """Put the message into each group."""
        world = self._joined()
        if len(message.body) > _MAX_BODY:
            raise MessageTooLarge(f"{len(message.body)} bytes are over memory's limit of {_MAX_BODY}")
        for group in world.receivers(message.topic):
            if group.full:
                await self._room(group, message.topic)
            if delay > 0:
                group.later(delay, lambda group=group: group.put(message))  # type: ignore[misc]
            else:
                group.put(message)

    async def _room(self, group: Group, topic: str) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                await group.room()
        except TimeoutError:
            raise BrokerUnavailable(f"memory: a group of {topic} is full, and nobody takes its events") from None

    async def subscribe(
        self,
        topic: str,
        *,
        group: str | None,
        prefetch: int = PREFETCH,
        since: float | None = None,  # noqa: ARG002 - there is no replay
    ) -> Subscription:
        """Begin to take a topic's messages."""
        world = self._joined()
        joined = world.join(topic, group)
        member = Member(joined, prefetch) if group is not None else _Alone(world, topic, joined, prefetch)
        joined.members.append(member)
        joined.pump()
        self._members.append(member)
        return member

    async def declare(self, topic: str, *, group: str) -> None:
        """Have events wait for a group."""
        self._joined().join(topic, group)

    async def close(self) -> None:
        """Close the subscriptions; the last to leave takes the name with it."""
        for member in self._members:
            await member.close()
        self._members.clear()
        world, self._world = self._world, None
        if world is not None:
            world.users -= 1
            if not world.users and _worlds.get(self._name) is world:
                world.end()
                del _worlds[self._name]

    def _joined(self) -> _World:
        if self._world is None:
            raise BrokerUnavailable("memory: the broker isn't open")
        return self._world
