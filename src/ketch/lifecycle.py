"""Lifecycle: one start-to-stop of a service. Start in order, stop in reverse."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from .client import Client
from .errors import CapabilityError, KetchError, RegistryError
from .plugins import Plugins
from .registry import Instance
from .request import Replies
from .server import routes
from .standard.servicers import standard
from .stats import Stats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .consumer import Consumer
    from .declared import Declared
    from .health import Health
    from .options import Options
    from .transport import Listener, Route

log = logging.getLogger("ketch")

#: Seconds between two looks at handlers that may hang.
_WATCH = 30.0


class Lifecycle:
    """A service that is running.

    Start: registry, transport, broker, client, publishers, lifespans, listener, subscriptions, registration.
    Stop, the reverse: deregister; take no more; let handlers and calls finish within the grace period, while they may
    still publish, call and settle; close subscriptions, lifespans, client, broker, transport, registry.
    A start that fails half-way unwinds what it had done.
    """

    def __init__(self, declared: Declared, options: Options) -> None:
        self.options = options
        self.stats = Stats()
        self.client = Client(options, middleware=declared.middleware)
        self._declared = declared
        self._stack = AsyncExitStack()
        self._listeners: list[Listener] = []
        self._started: list[Consumer[Any]] = []
        self._watch: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where others reach the server."""
        return self.options.advertise or (self._listeners[0].address if self._listeners else "")

    @property
    def health(self) -> Health:
        """Whether it does its work."""
        return self._declared.health

    async def wait(self) -> None:
        """Return never: a consumer that is lost is made again, and says so in `health`."""
        if self._watch is not None:
            await asyncio.shield(self._watch)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        self._watch = asyncio.create_task(self._supervise(), name=f"ketch supervision of {self.options.name}")
        self._announce()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)  # logged when it happened, and raised by `wait`
        await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        options, declared = self.options, self._declared
        await stack.enter_async_context(options.registry)
        await stack.enter_async_context(options.transport)
        stack.push_async_callback(options.broker.close)
        await options.broker.open(options.site())
        stack.push_async_callback(self.client.stop)
        await self.client.start()
        await self._await_needed()
        for publisher in declared.publishers:
            with _said_which_brokers_can():
                publisher.bind(options.broker, options.codecs, source=options.name, middleware=declared.middleware)
            stack.callback(publisher.unbind)
        self._bind_requests(stack)
        for lifespan in declared.lifespans:
            await stack.enter_async_context(lifespan())
        stack.push_async_callback(self._drain)
        stack.push_async_callback(declared.health.close)
        await self._start_health()
        await self._listen()
        for consumer in declared.consumers:
            with _said_which_brokers_can():
                await consumer.start(options.broker, options.codecs, declared.middleware)
            self._started.append(consumer)
            if consumer.stats is not None:
                self.stats.topics.append(consumer.stats)
        instance = self._instance()
        stack.push_async_callback(self._deregister, instance)
        options.registry.observe(self.stats)
        await options.registry.register(instance)
        stack.callback(declared.health.leave)
        declared.health.serve()

    async def _listen(self) -> None:
        options, served = self.options, self._routes()
        # Others find this instance where nobody else listens, so that they balance over all workers.
        if options.shared is None or not options.advertise:
            self._listeners.append(await options.transport.listen_for(options.name, options.address, served))
        if options.shared is not None:
            self._listeners.append(await options.transport.share(options.shared, served))

    async def _await_needed(self) -> None:
        for service, timeout in self._declared.needed.items():
            log.info("%s: waiting for %s, at most %g s", self.options.name, service, timeout)
            await self.client.ready(service, timeout)

    def _bind_requests(self, stack: AsyncExitStack) -> None:
        options, declared = self.options, self._declared
        for replier in declared.repliers:
            replier.bind(options.broker, options.codecs, source=options.name)
            stack.callback(replier.unbind)
        if declared.requesters:
            replies = Replies(options.broker, options.codecs, options.id)
            stack.push_async_callback(replies.close)
            for requester in declared.requesters:
                requester.bind(replies, source=options.name, timeout=options.request_timeout)
                stack.callback(requester.unbind)

    async def _start_health(self) -> None:
        declared = self._declared
        by_topic: dict[str, list[Consumer[Any]]] = {}
        for consumer in declared.consumers:
            by_topic.setdefault(f"topic:{consumer.topic.name}", []).append(consumer)
        probes = {name: partial(_trouble, consumers) for name, consumers in by_topic.items()}
        await declared.health.start(frozenset(servicer.contract for servicer in declared.servicers), probes)

    def _routes(self) -> dict[str, Route]:
        declared, codecs = self._declared, self.options.codecs
        served: dict[str, Route] = {}
        for servicer in declared.servicers:
            served.update(routes(servicer, codecs, declared.middleware, self.stats))
        # Probes and tools come without credentials, so no middleware stands before these.
        for servicer in standard(declared.servicers, declared.health, reflection=self.options.reflection):
            served.update(routes(servicer, codecs))
        return served

    def _instance(self) -> Instance:
        options = self.options
        return Instance(
            service=options.name,
            id=f"{options.name}-{options.id}",
            address=self.address,
            version=options.version,
            contracts=tuple(servicer.contract for servicer in self._declared.servicers),
            metadata={**options.labels, "transport": options.transport.name, "broker": options.broker.name},
        )

    async def _drain(self) -> None:
        grace = self.options.grace
        draining = [self._finish(consumer, grace) for consumer in self._started]
        draining += [listener.stop(grace) for listener in self._listeners]
        # Each is seen through whatever becomes of the others: their handlers are still within their grace.
        for result in await asyncio.gather(*draining, return_exceptions=True):
            if isinstance(result, BaseException):
                log.error("%s: a part of it did not stop as it should", self.options.name, exc_info=result)

    async def _finish(self, consumer: Consumer[Any], grace: float) -> None:
        try:
            await self._leave(consumer)
            await consumer.drain(grace)
        finally:
            await consumer.close()

    async def _leave(self, consumer: Consumer[Any]) -> None:
        try:
            await consumer.stop()
        except KetchError as error:
            # The handlers' work in hand matters more than a goodbye that nobody heard.
            log.warning("%s: leaving %s failed: %s", self.options.name, consumer.topic.name, error)

    async def _deregister(self, instance: Instance) -> None:
        try:
            await self.options.registry.deregister(instance)
        except RegistryError as error:
            log.warning("%s: could not be deregistered: %s", self.options.name, error)

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(_WATCH)
            for consumer in self._started:
                consumer.report_hang()

    def _announce(self) -> None:
        options = self.options
        parts = [
            f"broker {options.broker.name}",
            f"registry {options.registry.name}",
            f"transport {options.transport.name}" + (f" ({tls})" if (tls := options.transport.tls) else ""),
        ]
        places = [options.broker.location, options.registry.location, self.address]
        where = ", ".join(f"{part} at {place}" if place else part for part, place in zip(parts, places, strict=True))
        topics = ", ".join(consumer.topic.name for consumer in self._started)
        log.info(
            "%s %s is up: %s%s",
            options.name,
            options.version,
            where,
            f"; subscribed to {topics}" if topics else "",
        )
        if unheeded := options.settings.unheeded:
            # Whoever set them for a go-micro program counts on what they do there.
            log.warning("%s: these variables mean nothing to ketch: %s", options.name, ", ".join(unheeded))


def _trouble(consumers: list[Consumer[Any]]) -> str:
    return next((trouble for consumer in consumers if (trouble := consumer.trouble)), "")


@contextmanager
def _said_which_brokers_can() -> Iterator[None]:
    try:
        yield
    except CapabilityError as error:
        if not error.needs:
            raise
        others = ", ".join(Plugins().brokers_that(*error.needs)) or "none that is installed"
        raise CapabilityError(f"{error}. Brokers that do: {others}", *error.needs) from None
