"""Terms: what a subscriber asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..broker import DEAD_LETTERS
from ..errors import CapabilityError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..broker import Broker
    from ..message import Message
    from ..retry import RetryPolicy
    from ..topic import Promise, Topic


@dataclass(frozen=True, slots=True)
class Terms:
    """What a subscriber asks for; see `Service.subscribe`, whose arguments these are."""

    group: str | None = None
    concurrency: int = 1
    timeout: float | None = None
    retry: RetryPolicy | None = None
    dead_letters: str | None = DEAD_LETTERS
    order_by: Callable[[Any], object] | None = None
    batch: int | None = None
    within: float = 0.1
    prefetch: int | None = None
    since: float | None = None
    delivery: Promise | None = None
    #: Told of each event that is given up, before it goes to the dead letters.
    refused: Callable[[Message, BaseException], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without a broker."""
        for name, least in (("concurrency", 1), ("batch", 1), ("prefetch", 1), ("within", 0), ("timeout", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigurationError(f"{name} must be at least {least}, not {value}")
        if self.batch is not None and self.order_by is not None:
            raise ConfigurationError("a batch holds events of many keys: order_by doesn't go with batch")
        if self.batch is not None and self.prefetch is not None and self.prefetch < self.batch:
            raise ConfigurationError(f"a batch of {self.batch} can't come together with a prefetch of {self.prefetch}")

    def check(self, topic: Topic[Any], broker: Broker) -> None:
        """Check that a broker can give all of it.

        Raises:
            CapabilityError: it can't; the message says what.
        """
        can = broker.capabilities
        if not can.redelivers and "at-least-once" in (self.delivery, topic.delivery):
            raise CapabilityError(
                f"{topic.name} needs at-least-once delivery, which broker {broker.name} doesn't give", "redelivers"
            )
        if self.group is not None and not can.groups:
            raise CapabilityError(
                f"{topic.name} is subscribed to as group {self.group}, but broker {broker.name} has no groups: "
                "each subscriber gets everything there; say group=None if that is meant",
                "groups",
            )
        if self.since is not None and not can.replay:
            raise CapabilityError(
                f"{topic.name} is to be heard from the past on, which broker {broker.name} can't do", "replay"
            )
        if topic.is_pattern and not can.wildcards:
            raise CapabilityError(
                f"{topic.name} is a pattern of topics, which broker {broker.name} doesn't know", "wildcards"
            )
        if self.retry is not None and not self.retry.in_place and not (can.delays_redelivery and can.counts):
            raise CapabilityError(
                f"{topic.name} is to be retried through the broker, but {broker.name} can't delay and count that; "
                "leave in_place=True",
                "delays_redelivery",
                "counts",
            )
