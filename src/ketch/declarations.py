"""Declarations: what a service serves, publishes and handles, said before it runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, overload

from .broker import DEAD_LETTERS
from .consumer import Consumer, Terms
from .declared import Declared
from .errors import ConfigurationError
from .replier import Replier
from .request import Requester, RequestTopic
from .retry import ONCE
from .signature import check_handler
from .topic import Publisher, Topic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime

    from .call import Middleware
    from .health import Health
    from .retry import RetryPolicy
    from .rpc import Servicer, Stub
    from .topic import Promise

T = TypeVar("T")
Q = TypeVar("Q")
P = TypeVar("P")

Handler: TypeAlias = Callable[[T], Awaitable[None]]

#: A subscriber's group unless it says otherwise: the service's name, so that its instances share the events.
SHARED: Final = "\0shared"


class Declarations:
    """The declaring half of a service."""

    def __init__(self, name: str, middleware: Sequence[Middleware]) -> None:
        self.name = name
        self._declared = Declared(tuple(middleware))

    @abstractmethod
    def _check_stopped(self) -> None:
        """Raise a `ConfigurationError` while the service runs."""

    def serve(self, servicer: Servicer) -> None:
        """Serve a contract.

        Raises:
            ConfigurationError: it is served already.
        """
        self._check_stopped()
        if any(servicer.contract == other.contract for other in self._declared.servicers):
            raise ConfigurationError(f"{self.name} serves {servicer.contract} already")
        self._declared.servicers.append(servicer)

    def publisher(self, topic: Topic[T]) -> Publisher[T]:
        """Declare that this service publishes to a topic; the publisher works while the service runs."""
        self._check_stopped()
        publisher = Publisher(topic)
        self._declared.publishers.append(publisher)
        return publisher

    @overload
    def subscribe(
        self,
        topic: Topic[T],
        *,
        group: str | None = SHARED,
        batch: None = None,
        concurrency: int = 1,
        order_by: Callable[[T], object] | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        dead_letters: str | None = DEAD_LETTERS,
        prefetch: int | None = None,
        since: datetime | None = None,
        delivery: Promise | None = None,
    ) -> Callable[[Handler[T]], Handler[T]]: ...

    @overload
    def subscribe(
        self,
        topic: Topic[T],
        *,
        batch: int,
        within: float = 0.1,
        group: str | None = SHARED,
        concurrency: int = 1,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        dead_letters: str | None = DEAD_LETTERS,
        prefetch: int | None = None,
        since: datetime | None = None,
        delivery: Promise | None = None,
    ) -> Callable[[Handler[list[T]]], Handler[list[T]]]: ...

    def subscribe(  # noqa: D417 - `terms` are the rest of those above
        self, topic: Topic[Any], *, group: str | None = SHARED, since: datetime | None = None, **terms: Any
    ) -> Callable[[Handler[Any]], Handler[Any]]:
        """Handle a topic's events with the decorated `async def handler(payload)`.

        Args:
            topic: what to subscribe to.
            group: who shares the events. By default the instances of this service, so each event is handled once per
                service; None for every instance of it; a name of your own for a second handler of the same topic.
            concurrency: how many events may be in hand at a time. With one, they are handled in order; with more, those
                of one key are, where their publisher or `order_by` gave them one.
            order_by: the key of a payload, instead of the event's own; what it returns must be hashable.
            timeout: seconds after which a handler is cancelled and has failed.
            retry: how a failure is followed up. By default five tries with growing pauses at brokers that redeliver,
                one at the others.
            dead_letters: the topic that events go to which can't be handled, at brokers that redeliver; None to drop
                them.
            batch: hand over a list of up to so many payloads, as soon as there are so many or `within` seconds have
                passed since the first; `async def handler(payloads)`.
            within: see `batch`.
            prefetch: how many events may be taken from the broker and not settled, where it redelivers. By default as
                many as the handler gets done in a quarter of a second, 256 at most.
            since: where a new group begins to listen, in the past; the broker must be able to replay.
            delivery: the promise that this subscriber needs, should the topic promise less.

        Raises:
            HandlerError: the handler's signature doesn't fit the topic.
            ConfigurationError: another handler of this service subscribes to the topic in the same group, or a figure
                makes no sense.
        """
        named = self.name if group == SHARED else group
        if since is not None and since.tzinfo is None:
            raise ConfigurationError(f"since={since.isoformat()} has no time zone; datetime.now(UTC) has")
        asked = Terms(named, since=None if since is None else since.timestamp(), **terms)

        def register(handler: Handler[Any]) -> Handler[Any]:
            self._check_stopped()
            check_handler(topic, handler, batch=asked.batch is not None)
            self._declared.add_consumer(Consumer(topic, handler, asked))
            return handler

        return register

    def requester(self, topic: RequestTopic[Q, P]) -> Requester[Q, P]:
        """Declare that this service makes requests over the broker; the requester works while the service runs."""
        self._check_stopped()
        requester = Requester(topic)
        self._declared.requesters.append(requester)
        return requester

    def reply(
        self,
        topic: RequestTopic[Q, P],
        *,
        group: str | None = SHARED,
        concurrency: int = 64,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> Callable[[Callable[[Q], Awaitable[P]]], Callable[[Q], Awaitable[P]]]:
        """Answer a topic's requests with what the decorated `async def handler(request)` returns.

        A `StatusError` that it raises reaches the requester as itself, anything else as `Unknown`.

        Args:
            topic: what to answer.
            group: who shares the requests, as in `subscribe`.
            concurrency: how many requests may be in hand at a time.
            timeout: seconds after which a handler is cancelled, and the requester gets `DeadlineExceeded`.
            retry: how a failure is followed up before the requester is told; by default it is told at once.

        Raises:
            HandlerError: the handler's signature doesn't fit the topic.
            ConfigurationError: another handler of this service subscribes to the topic in the same group.
        """
        named = self.name if group == SHARED else group

        def register(handler: Callable[[Q], Awaitable[P]]) -> Callable[[Q], Awaitable[P]]:
            self._check_stopped()
            check_handler(topic, handler)
            replier = Replier(topic, handler)
            terms = Terms(
                named,
                concurrency,
                timeout,
                retry or ONCE,
                dead_letters=None,
                refused=replier.refuse,
            )
            self._declared.add_consumer(Consumer(topic, replier, terms))
            self._declared.repliers.append(replier)
            return handler

        return register

    async def pause(self, handler: Handler[Any]) -> None:
        """Leave a handler's groups until `resume`, once what was taken is handled; the service stays well meanwhile.

        Where the broker keeps events for a group they wait, or its other members take them; elsewhere they are missed.

        Raises:
            NotRunning: the service isn't running.
            ConfigurationError: it isn't a handler of this service.
        """
        for consumer in self._declared.consumers_of(handler):
            await consumer.pause(self._grace())

    async def resume(self, handler: Handler[Any]) -> None:
        """Come back after `pause`.

        Raises:
            BrokerError: the broker refused or can't be reached; the handler is still paused.
            NotRunning: the service isn't running.
            ConfigurationError: it isn't a handler of this service.
        """
        for consumer in self._declared.consumers_of(handler):
            await consumer.resume()

    @property
    def health(self) -> Health:
        """What the service tells of itself to `grpc.health.v1` and `ketch health`; report your own troubles there."""
        return self._declared.health

    def health_check(self, function: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
        """Run the decorated `async def` every 5 seconds; while it raises, or takes 2, the service isn't serving."""
        self._declared.health.check(function)
        return function

    def lifespan(self, function: Callable[[], AsyncIterator[None]]) -> Callable[[], AsyncIterator[None]]:
        """Open what the handlers need before they run, and close it after: an async generator that yields once.

        The broker is connected and calls can be made within it.
        """
        self._check_stopped()
        self._declared.lifespans.append(asynccontextmanager(function))
        return function

    def need(self, service: str | type[Stub], *, timeout: float = 30.0) -> None:
        """Wait at start until an instance of another service can be reached, before lifespans and handlers begin.

        Two services that need each other never start; let one of them do without.

        Args:
            service: its name, a contract's full name, or a generated stub.
            timeout: seconds after which the start fails with `DeadlineExceeded`.
        """
        self._check_stopped()
        self._declared.needed[service if isinstance(service, str) else service.contract] = timeout

    @abstractmethod
    def _grace(self) -> float:
        """Return the seconds that handlers may go on after they were told to stop."""
