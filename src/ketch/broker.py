"""Broker: carries events from publishers to the groups that subscribed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .message import Message
    from .registry import Registry
    from .transport import Transport
    from .url import Url


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a broker can do. A service that needs more than its broker declares does not start.

    Attributes:
        durable: an event outlives the broker's restart and waits for a group that is away.
        redelivers: an event that was not settled comes again: at-least-once. Without it: at-most-once.
        ordered: one publisher's events on a topic arrive in the order of publishing at a group with one member.
        groups: exactly one member of a group gets each event.
        replay: a subscription may start in the past.
        delay: an event may be published for later.
        wildcards: a subscription may name a pattern of topics.
        max_message_size: largest body in bytes, None for no limit of the broker's own.
        subscribe_lag: seconds until publishers that are open already reach a new subscription; 0 for at once.
    """

    durable: bool = False
    redelivers: bool = False
    ordered: bool = False
    groups: bool = True
    replay: bool = False
    delay: bool = False
    wildcards: bool = False
    max_message_size: int | None = None
    subscribe_lag: float = 0.0


class Outcome(Enum):
    """What became of a delivery."""

    DONE = "done"  #: handled; never again
    AGAIN = "again"  #: to be delivered again, to whichever member of the group
    DEAD = "dead"  #: can't be handled; to the dead letters where the broker has them, otherwise dropped


class Delivery:
    """A message as one subscription got it.

    Attributes:
        message: the message.
        attempt: which delivery of it this is, from 1; always 1 where the broker doesn't count.
        raw: the driver's own object, for the plugin alone.
    """

    __slots__ = ("attempt", "message", "raw")

    def __init__(self, message: Message, attempt: int = 1, raw: object = None) -> None:
        self.message = message
        self.attempt = attempt
        self.raw = raw


@dataclass(frozen=True, slots=True)
class Site:
    """Where a broker is opened: the program it works for and what it may use of it.

    Attributes:
        service: the service's name, for the broker's own tools to show.
        instance_id: unique for this process and service.
        host: the host that this program listens on, should the broker listen itself.
        registry, transport: open, and closed after the broker.
    """

    service: str
    instance_id: str
    registry: Registry
    transport: Transport
    host: str = "127.0.0.1"


class Subscription(ABC):
    """One member's share of a topic's events: pulled, in batches.

    Only one task receives at a time. A subscription buffers a bounded number of messages; beyond it the
    broker is held back where it can be, and where it can't, messages are dropped, counted and logged.
    """

    @abstractmethod
    async def receive(self) -> Sequence[Delivery]:
        """Return the deliveries that are there, at least one, in arrival order; wait while there is none.

        After `stop` it returns what was taken before, then an empty sequence for ever.
        A connection that is lost and comes back is the plugin's business and not seen here.

        Raises:
            BrokerError: the subscription is lost for good.
        """

    @abstractmethod
    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Say what became of deliveries; the only acknowledgement there is. A no-op at at-most-once brokers.

        Raises:
            BrokerError: the broker did not take it; the deliveries will come again.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Take no more from the broker. What was taken can still be received and settled, until `close`."""

    @abstractmethod
    async def close(self) -> None:
        """Give up the subscription; what was taken and not settled is given back. Closing twice is no error."""


class Broker(ABC):
    """Carries events. One instance serves any number of publishers and subscriptions of a program.

    What every broker guarantees:

    - A message's topic, headers and body arrive as they were published, byte for byte; an empty body too.
    - A group's members share a topic's events; a subscription without a group gets them all.
    - Events that nobody subscribed to are no error.
    - It reconnects by itself, for ever, with backoff, and subscriptions go on after that.
    - Drivers' exceptions never pass: they are mapped to `BrokerError`.

    The rest differs, is declared in `capabilities`, and is checked by `ketch.testing.brokers`.
    """

    #: The plugin's name, as in its entry point.
    name: ClassVar[str]
    #: What it can do.
    capabilities: ClassVar[Capabilities]

    @classmethod
    @abstractmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `name://address?options`, without any IO.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """

    @abstractmethod
    async def open(self, site: Site) -> None:
        """Connect. An object can be opened again after it was closed.

        Raises:
            BrokerUnavailable: it can't be reached within its connect timeout.
            BrokerError: it refuses us.
        """

    @abstractmethod
    async def publish(self, message: Message) -> None:
        """Hand an event over to the broker; at return it was taken, as the broker's kind of promise has it.

        Raises:
            BrokerUnavailable: it can't be reached within the broker's publish timeout.
            MessageTooLarge: over the broker's limit.
            BrokerError: it refuses the message.
        """

    @abstractmethod
    async def subscribe(self, topic: str, *, group: str | None) -> Subscription:
        """Subscribe; at return the broker has taken it. Without a group every event comes to this subscription.

        Raises:
            BrokerUnavailable: it can't be reached.
            SubscriptionRefused: it won't let us.
        """

    @abstractmethod
    async def close(self) -> None:
        """Send what was published, close what is still subscribed, disconnect. Closing twice is no error."""

    @property
    def trouble(self) -> str:
        """Why nothing comes or goes just now, such as a connection that is being made again; "" where all is well.

        A service with consumers is not serving meanwhile; never a secret.
        """
        return ""

    @property
    def location(self) -> str:
        """Where it is, for the line at start; never a secret."""
        return ""
