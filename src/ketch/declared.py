"""Declared: what a service consists of, before it runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import ConfigurationError
from .health import Health

if TYPE_CHECKING:
    from .call import Middleware
    from .consumer import Consumer
    from .replier import Replier
    from .request import Requester
    from .rpc import Servicer
    from .topic import Publisher

Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[object]]


@dataclass(slots=True)
class Declared:
    """What a service consists of."""

    middleware: tuple[Middleware, ...] = ()
    servicers: list[Servicer] = field(default_factory=list)
    consumers: list[Consumer[Any]] = field(default_factory=list)
    publishers: list[Publisher[Any]] = field(default_factory=list)
    requesters: list[Requester[Any, Any]] = field(default_factory=list)
    repliers: list[Replier[Any, Any]] = field(default_factory=list)
    lifespans: list[Lifespan] = field(default_factory=list)
    needed: dict[str, float] = field(default_factory=dict)  #: services to wait for at start, with seconds
    health: Health = field(default_factory=Health)

    def add_consumer(self, consumer: Consumer[Any]) -> None:
        """Add a consumer.

        Raises:
            ConfigurationError: another one shares its topic and group.
        """
        topic, group = consumer.topic.name, consumer.group
        for other in self.consumers:
            if group is not None and other.topic.name == topic and other.group == group:
                raise ConfigurationError(
                    f"{other.name} handles {topic} in group {group} already, so each would get half of the "
                    f"events; give this handler a group of its own: subscribe(..., group={group + '.other'!r})"
                )
        self.consumers.append(consumer)

    def consumers_of(self, handler: object) -> list[Consumer[Any]]:
        """Return the consumers of a handler.

        Raises:
            ConfigurationError: there is none.
        """
        found = [consumer for consumer in self.consumers if handler in (consumer.handler, _replying(consumer.handler))]
        if not found:
            raise ConfigurationError(f"{handler!r} handles no topic of this service")
        return found


def _replying(handler: object) -> object:
    return getattr(handler, "handler", None)
