"""Topic and Publisher: typed publishing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from .call import Call, Kind, compose
from .codec import JSON, PROTOBUF
from .errors import CapabilityError, ConfigurationError, NotRunning
from .message import Message, event_headers, own_metadata, stamp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .broker import Broker
    from .call import Middleware, Next
    from .codec import Codecs, Encode

T = TypeVar("T")

Promise = Literal["at-most-once", "at-least-once"]


class Topic(Generic[T]):
    """A stream of events of one type; what publishers and subscribers share.

    Args:
        name: the topic's name at the broker, such as `user.created`.
        type_: the payload's class: a generated protobuf message, a dataclass, `dict`, …
        content_type: how publishers encode it; by default protobuf for protobuf messages and JSON for the rest.
            Subscribers decode whatever content type an event says it has.
        delivery: the promise that publishers and subscribers of the topic rely on; a service doesn't start on a broker
            that can't give it. At most once is what every broker can give.
    """

    __slots__ = ("content_type", "delivery", "name", "type")

    def __init__(
        self, name: str, type_: type[T], *, content_type: str = "", delivery: Promise = "at-most-once"
    ) -> None:
        if not name or not name.isprintable() or " " in name:
            raise ConfigurationError(f"{name!r} is no topic name")
        self.name = name
        self.type = type_
        self.content_type = content_type or (PROTOBUF if hasattr(type_, "DESCRIPTOR") else JSON)
        self.delivery = delivery

    @property
    def event_type(self) -> str:
        """The events' `ce-type`: a protobuf message's full name, otherwise the class's."""
        descriptor = getattr(self.type, "DESCRIPTOR", None)
        return str(descriptor.full_name) if descriptor is not None else self.type.__qualname__

    def check(self, broker: Broker) -> None:
        """Check that the broker can give what the topic needs.

        Raises:
            CapabilityError: it can't.
        """
        if self.delivery == "at-least-once" and not broker.capabilities.redelivers:
            raise CapabilityError(
                f"topic {self.name} needs at-least-once delivery, which broker {broker.name} doesn't give; "
                "use one that redelivers, or declare the topic at-most-once"
            )

    def __repr__(self) -> str:
        return f"<Topic {self.name} of {self.event_type}>"


class Publisher(Generic[T]):
    """Publishes the events of one topic. Declared with the service, usable while it runs."""

    def __init__(self, topic: Topic[T]) -> None:
        self.topic = topic
        self._broker: Broker | None = None
        self._encode: Encode
        self._shared: Mapping[str, str] = {}
        self._chain: Next | None = None

    def bind(self, broker: Broker, codecs: Codecs, *, source: str, middleware: Sequence[Middleware] = ()) -> None:
        """Connect the publisher to an open broker; the service does this at start.

        Raises:
            ConfigurationError: no codec speaks the topic's content type, or the broker can't give its promise.
        """
        self.topic.check(broker)
        codec = codecs.find(self.topic.content_type)
        self._encode = codec.encoder(self.topic.type)
        self._shared = event_headers(source=source, type=self.topic.event_type, content_type=codec.content_type)
        self._chain = compose(middleware, self._publish_call) if middleware else None
        self._broker = broker

    def unbind(self) -> None:
        """Disconnect it; publishing is an error from now on."""
        self._broker = None

    async def publish(self, payload: T, *, metadata: Mapping[str, str] | None = None) -> None:
        """Publish one event. At return the broker has taken it, with the broker's kind of promise.

        `metadata` travels as headers and reaches the handlers' context. Nothing of a call in hand is added to it.

        Raises:
            CodecError: the payload isn't of the topic's type.
            BrokerUnavailable: the broker can't be reached within its publish timeout.
            BrokerError: the broker refused the event; `MessageTooLarge` when it is over a limit.
            NotRunning: the service isn't running.
        """
        broker = self._broker
        if broker is None:
            raise NotRunning(f"publishing to {self.topic.name} before the service started or after it stopped")
        body = self._encode(payload)
        headers = stamp(self._shared)
        if self._chain is not None:
            message = Message(self.topic.name, headers, body)
            await self._chain(Call(Kind.PUBLISH, self.topic.name, payload, dict(metadata or {}), message=message))
            return
        if metadata:
            headers.update(own_metadata(metadata))
        await broker.publish(Message(self.topic.name, headers, body))

    async def _publish_call(self, call: Call) -> object:
        message: Any = call.message
        if self._broker is None:
            raise NotRunning(f"publishing to {self.topic.name} after the service stopped")
        added = dict(own_metadata(call.metadata))
        await self._broker.publish(Message(message.topic, {**message.headers, **added}, message.body))
        return None
