"""memory: events within one process, through real queues; what tests and single programs need.

Brokers of the same URL (`memory://name`) in one process reach each other. Handlers never run inside `publish`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar, Self

from ..broker import Broker, Capabilities, Delivery, Site, Subscription
from ..errors import BrokerUnavailable, ConfigurationError, MessageTooLarge
from ..mailbox import Mailbox

if TYPE_CHECKING:
    from ..message import Message
    from ..url import Url

_MAX_BODY = 64 * 1024 * 1024

_worlds: dict[str, _World] = {}


class _World:
    """The subscriptions of all open brokers of one name."""

    def __init__(self) -> None:
        self.users = 0
        self.members: dict[str, dict[str | None, deque[Mailbox]]] = {}

    def receivers(self, topic: str) -> list[Mailbox]:
        """Return who gets the next message: everyone without a group, and the next member of each group."""
        receivers: list[Mailbox] = []
        for group, members in self.members.get(topic, {}).items():
            if group is None:
                receivers.extend(members)
            elif members:
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
        self._mailboxes: list[Mailbox] = []

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
        for mailbox in world.receivers(message.topic):
            deliveries = (Delivery(message),)  # one each: a delivery is one subscription's own
            if not mailbox.offer(deliveries):
                await mailbox.offer_patiently(deliveries)

    async def subscribe(self, topic: str, *, group: str | None) -> Subscription:
        """Begin to collect a topic's messages."""
        members = self._joined().members.setdefault(topic, {}).setdefault(group, deque())

        async def leave() -> None:
            members.remove(mailbox)

        mailbox = Mailbox(topic, leave)
        members.append(mailbox)
        self._mailboxes.append(mailbox)
        return mailbox

    async def close(self) -> None:
        """Close the subscriptions; the last to leave takes the name with it."""
        for mailbox in self._mailboxes:
            await mailbox.close()
        self._mailboxes.clear()
        world, self._world = self._world, None
        if world is not None:
            world.users -= 1
            if not world.users and _worlds.get(self._name) is world:
                del _worlds[self._name]

    def _joined(self) -> _World:
        if self._world is None:
            raise BrokerUnavailable("memory: the broker isn't open")
        return self._world
