"""Broker: carries events from publishers to the groups that subscribed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Self

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .message import Message
    from .registry import Registry
    from .transport import Transport
    from .url import Url


#: The topic that dead letters go to. One for all: whoever looks after them needs no list of topics.
DEAD_LETTERS = "ketch.dead"

#: Unsettled deliveries that a subscription holds at most, unless it is told otherwise.
PREFETCH = 256


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a broker can do. A service that needs more than its broker declares does not start.

    Attributes:
        durable: an event outlives the broker's restart and waits for a group that is away.
        redelivers: an event that was not settled comes again: at-least-once. Without it: at-most-once.
        ordered: one publisher's events on a topic arrive in the order of publishing at a group with one member, as long
            as none is delivered again.
        keyed: events of one key go to one member of the group at a time, in order, however many members it has.
        groups: exactly one member of a group gets each event.
        selective: each delivery is settled by itself. Without it, as in a log, what comes after an unsettled delivery
            comes again too, once the subscription is gone.
        counts: `Delivery.attempt` counts over all processes; without it only this subscription's own.
        delays_redelivery: a delivery given back comes after `Delivery.retry_after` seconds; without it, at once.
        replay: a subscription may start in the past.
        max_delay: seconds by which an event may be published ahead of its time, 0 where it can't be.
        wildcards: a subscription may name a pattern of topics: `*` stands for one word between dots, `>` at the end for
            one or more.
        max_message_size: largest body in bytes, None for no limit of the broker's own.
        subscribe_lag: seconds until publishers that are open already reach a new subscription; 0 for at once.
    """

    durable: bool = False
    redelivers: bool = False
    ordered: bool = False
    keyed: bool = False
    groups: bool = True
    selective: bool = True
    counts: bool = False
    delays_redelivery: bool = False
    replay: bool = False
    max_delay: float = 0.0
    wildcards: bool = False
    max_message_size: int | None = None
    subscribe_lag: float = 0.0


class Outcome(Enum):
    """What became of a delivery."""

    DONE = "done"  #: handled, or put with the dead letters; never again
    AGAIN = "again"  #: to be delivered again, to whichever member of the group


class Delivery(Struct, eq=False):
    """A message as one subscription got it.

    Attributes:
        message: the message.
        attempt: which delivery of it this is, from 1; see `Capabilities.counts`.
        retry_after: seconds after which it is to come again when its outcome is `AGAIN`; set by the consumer.
        failures: how often its handling failed since it was received; the consumer's own.
        raw: the driver's own object, for the plugin alone.
    """

    message: Message
    attempt: int = 1
    raw: object = None
    failures: int = 0
    retry_after: float = 0.0


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

    Only one task receives at a time, while another may settle. A subscription buffers a bounded number of messages;
    beyond it the broker is held back where it can be, and where it can't, messages are dropped, counted and logged.

    At brokers that redeliver, a delivery is this member's from the moment it is taken until it is settled, however
    long that takes: where the broker sets a deadline, the subscription extends it as long as it isn't closed. Never are
    more deliveries taken and not settled than the subscription's `prefetch`.
    """

    @abstractmethod
    async def receive(self) -> Sequence[Delivery]:
        """Return the deliveries that are there, at least one, in arrival order; wait while there is none.

        After `stop` it returns what was taken before, then an empty sequence for ever.
        A connection that is lost and comes back is the plugin's business and not seen here; deliveries of before that
        can't be settled any more come again.

        Raises:
            BrokerError: the subscription is lost; whoever wants more events subscribes anew.
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

    async def limit(self, unsettled: int) -> None:  # noqa: B027 - not every broker has such a bound
        """Take fewer or more events ahead from now on: a hint, given rarely, between 1 and the `prefetch` of before.

        A consumer whose handlers are slow leaves the events to other members that way.
        """

    @property
    def trouble(self) -> str:
        """Why this subscription gets nothing just now, though the broker may be well; "" where it would."""
        return ""


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
    async def publish(self, message: Message, *, delay: float = 0.0) -> None:
        """Hand an event over to the broker; at return it was taken, as the broker's kind of promise has it.

        At brokers that redeliver, "taken" is the broker's own confirmation: what was published then survives what the
        broker's storage survives.

        Args:
            message: the event.
            delay: seconds until it is delivered, at most `Capabilities.max_delay`; callers have checked that.

        Raises:
            BrokerUnavailable: it can't be reached within the broker's publish timeout.
            MessageTooLarge: over the broker's limit.
            BrokerError: it refuses the message.
        """

    @abstractmethod
    async def subscribe(
        self, topic: str, *, group: str | None, prefetch: int = PREFETCH, since: float | None = None
    ) -> Subscription:
        """Subscribe; at return the broker has taken it. Without a group every event comes to this subscription.

        A group that is new gets what is published from now on. At a broker that keeps events it stays when its last
        member has gone, and events wait for it.

        Args:
            topic: the topic, or a pattern of topics where the broker can.
            group: who shares the events; None for none, which is forgotten with the subscription.
            prefetch: how many deliveries may be taken and not settled, where the broker redelivers.
            since: UNIX time from which a new group, or a subscription without one, gets what was published; only
                where the broker can `replay`. A group that exists goes on where it was.

        Raises:
            BrokerUnavailable: it can't be reached.
            SubscriptionRefused: it won't let us.
        """

    async def declare(self, topic: str, *, group: str) -> None:
        """Make a group exist, so that events wait for it from now on, without taking any.

        Raises:
            BrokerUnavailable: it can't be reached.
            SubscriptionRefused: it won't let us.
        """
        await (await self.subscribe(topic, group=group)).close()

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
