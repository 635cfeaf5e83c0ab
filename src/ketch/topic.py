"""Topic and Publisher: typed publishing."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from .call import Call, Kind, compose
from .codec import JSON, PROTOBUF
from .context import current
from .errors import CapabilityError, ConfigurationError, NotRunning
from .expiry import EXPIRES, expires_in
from .message import KEY, Message, Stamped, event_headers, own_metadata, stamp
from .pattern import is_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from .broker import Broker
    from .call import Middleware, Next
    from .codec import Codecs, Encode

T = TypeVar("T")

#: Longest key of an event, in characters.
_KEY: Final = 255

Promise = Literal["at-most-once", "at-least-once"]


class Topic(Generic[T]):
    """A stream of events of one type; what publishers and subscribers share.

    Args:
        name: the topic's name at the broker, such as `user.created`.
        type_: the payload's class: a generated protobuf message, a dataclass, `dict`, …; `Message` for subscribers that
            want events as they come, of whatever type.
        content_type: how publishers encode it; by default protobuf for protobuf messages and JSON for the rest.
            Subscribers decode whatever content type an event says it has.
        delivery: the promise that publishers and subscribers of the topic rely on; a service doesn't start on a broker
            that can't give it. At most once is what every broker can give.
        key: what belongs together of a payload, such as `lambda order: order.user_id`: events of one key are handled in
            order, whatever a subscriber's concurrency. It travels as `ce-partitionkey`.
        lifetime: seconds that an event is of use; what is published while a call with a deadline is in hand, no longer
            than that. Subscribers skip events that are past it, and it bounds the calls that their handlers make.
            `math.inf` for the call's deadline alone; None for events that have to be handled however late it is. It
            travels as `ce-expirytime`.

    A name with `*` for a word between dots, or `>` at its end for one or more, is a pattern of topics: it can be
    subscribed to, where the broker can do that, and not be published to.
    """

    __slots__ = ("content_type", "delivery", "key", "lifetime", "name", "type")

    def __init__(
        self,
        name: str,
        type_: type[T],
        *,
        content_type: str = "",
        delivery: Promise = "at-most-once",
        key: Callable[[T], str] | None = None,
        lifetime: float | None = None,
    ) -> None:
        if not name or not name.isprintable() or " " in name:
            raise ConfigurationError(f"{name!r} is no topic name")
        self.name = name
        self.type = type_
        self.content_type = content_type or (PROTOBUF if hasattr(type_, "DESCRIPTOR") else JSON)
        self.delivery = delivery
        self.key = key
        if lifetime is not None and not lifetime > 0:
            raise ConfigurationError(f"{name}: a lifetime of {lifetime} seconds")
        self.lifetime = lifetime

    @property
    def is_pattern(self) -> bool:
        """Whether it stands for many topics."""
        return is_pattern(self.name)

    @property
    def event_type(self) -> str:
        """The events' `ce-type`: a protobuf message's full name, otherwise the class's."""
        descriptor = getattr(self.type, "DESCRIPTOR", None)
        return str(descriptor.full_name) if descriptor is not None else self.type.__qualname__

    def __repr__(self) -> str:
        return f"<Topic {self.name} of {self.event_type}>"


class Publisher(Generic[T]):
    """Publishes the events of one topic. Declared with the service, usable while it runs."""

    def __init__(self, topic: Topic[T]) -> None:
        if topic.is_pattern:
            raise ConfigurationError(f"{topic.name} is a pattern of topics, which can only be subscribed to")
        if topic.type is Message:
            raise ConfigurationError(f"{topic.name} is of any type, so it can only be subscribed to")
        self.topic = topic
        self._key = topic.key
        self._lifetime = topic.lifetime
        self._broker: Broker | None = None
        self._encode: Encode
        self._shared: Mapping[str, str] = {}
        self._chain: Next | None = None

    def bind(self, broker: Broker, codecs: Codecs, *, source: str, middleware: Sequence[Middleware] = ()) -> None:
        """Connect the publisher to an open broker; the service does this at start.

        Raises:
            ConfigurationError: no codec speaks the topic's content type, or the broker can't give its promise.
        """
        if self.topic.delivery == "at-least-once" and not broker.capabilities.redelivers:
            raise CapabilityError(
                f"{self.topic.name} needs at-least-once delivery, which broker {broker.name} doesn't give", "redelivers"
            )
        codec = codecs.find(self.topic.content_type)
        self._encode = codec.encoder(self.topic.type)
        self._shared = event_headers(source=source, type=self.topic.event_type, content_type=codec.content_type)
        self._chain = compose(middleware, self._publish_call) if middleware else None
        self._broker = broker

    def unbind(self) -> None:
        """Disconnect it; publishing is an error from now on."""
        self._broker = None

    async def publish(
        self,
        payload: T,
        *,
        metadata: Mapping[str, str] | None = None,
        key: str = "",
        delay: float = 0.0,
        at: datetime | None = None,
    ) -> None:
        """Publish one event. At return the broker has taken it, with the broker's kind of promise.

        Args:
            payload: the event.
            metadata: travels as headers and reaches the handlers' context. Nothing of a call in hand is added to it.
            key: events of one key are handled in order; by default what the topic's `key` says.
            delay: seconds until it is delivered, where the broker can do that.
            at: when it is delivered, instead of `delay`; a time in the past is now.

        Raises:
            CodecError: the payload isn't of the topic's type.
            BrokerUnavailable: the broker can't be reached within its publish timeout.
            BrokerError: the broker refused the event; `MessageTooLarge` when it is over a limit.
            CapabilityError: the broker can't hold an event back, or not for so long.
            NotRunning: the service isn't running.
        """
        broker = self._broker
        if broker is None:
            raise NotRunning(f"publishing to {self.topic.name} before the service started or after it stopped")
        if delay or at is not None:
            delay = _delay(broker, self.topic.name, delay, at)
        body = self._encode(payload)
        if self._chain is None and not (key or metadata or delay) and self._key is None and self._lifetime is None:
            await broker.publish(Message(self.topic.name, Stamped(self._shared), body))
            return
        headers = stamp(self._shared)
        if key or self._key is not None:
            headers[KEY] = checked_key(key or str(self._key(payload)))  # type: ignore[misc]  # one of the two is there
        if self._lifetime is not None:
            headers.update(expiry(self._lifetime, delay))
        if self._chain is not None:
            message = Message(self.topic.name, headers, body)
            call = Call(Kind.PUBLISH, self.topic.name, payload, dict(metadata or {}), message=message)
            call.delay = delay
            await self._chain(call)
            return
        if metadata:
            headers.update(own_metadata(metadata))
        await broker.publish(Message(self.topic.name, headers, body), delay=delay)

    async def _publish_call(self, call: Call) -> object:
        message: Any = call.message
        if self._broker is None:
            raise NotRunning(f"publishing to {self.topic.name} after the service stopped")
        added = dict(own_metadata(call.metadata))
        message = Message(message.topic, {**message.headers, **added}, message.body)
        await self._broker.publish(message, delay=call.delay)
        return None


def expiry(lifetime: float, delay: float = 0.0) -> dict[str, str]:
    """Return the header of an event that is of use for so long, and no longer than the call in hand has time."""
    remaining = current().remaining()
    seconds = lifetime + delay if remaining is None else min(lifetime + delay, remaining)
    return {} if seconds == math.inf else {EXPIRES: expires_in(seconds)}


def _delay(broker: Broker, topic: str, delay: float, at: datetime | None) -> float:
    if at is not None:
        if delay:
            raise ConfigurationError(f"{topic}: either delay= or at=, not both")
        if at.tzinfo is None:
            raise ConfigurationError(f"{topic}: at={at.isoformat()} has no time zone; datetime.now(UTC) has")
        delay = max(0.0, at.timestamp() - time.time())
    return check_delay(broker, topic, delay)


def check_delay(broker: Broker, topic: str, delay: float) -> float:
    """Return a delay that the broker can do.

    Raises:
        CapabilityError: it can't hold an event back, or not for so long.
        ConfigurationError: it isn't a time.
    """
    if not 0 <= delay < math.inf:
        raise ConfigurationError(f"{topic}: a delay of {delay} seconds")
    most = broker.capabilities.max_delay
    if delay > most:
        can = f"holds events back for at most {most:g} s" if most else "can't hold events back"
        raise CapabilityError(f"{topic}: a delay of {delay:.0f} s; broker {broker.name} {can}", "max_delay")
    return delay


def checked_key(key: str) -> str:
    """Return a key that can travel.

    Raises:
        ConfigurationError: it can't.
    """
    if not key.isprintable() or len(key) > _KEY or key != key.strip():
        raise ConfigurationError(f"a key is printable, at most {_KEY} characters, without white space around it")
    return key
