"""run(): services under test, whole and real, in memory: no sockets, no servers, no sleeping."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import uuid4

from ..client import Client
from ..consumer import Consumer
from ..options import Options, build
from ..request import Replies, Requester, RequestTopic
from ..settings import read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from ..rpc import Stub
    from ..service import Service
    from ..topic import Publisher, Topic

S = TypeVar("S", bound="Stub")
T = TypeVar("T")
Q = TypeVar("Q")
P = TypeVar("P")

_worlds = count(1)


class Watch(Generic[T]):
    """A topic's events as they come, from the moment that it was watched."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[T] = asyncio.Queue(maxsize=10_000)

    async def handle(self, payload: T) -> None:
        """Take one event in."""
        await self._events.put(payload)

    async def next(self, timeout: float = 5.0) -> T:
        """Return the next event.

        Raises:
            TimeoutError: none came within `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            return await self._events.get()

    def empty(self) -> bool:
        """Tell whether there is no event waiting now."""
        return self._events.empty()


class App:
    """The services that run, and a client beside them."""

    def __init__(self, options: Options, stack: AsyncExitStack) -> None:
        self.client = Client(options)
        self._options = options
        self._stack = stack

    def stub(self, contract: type[S], service: str = "") -> S:
        """Return a stub that calls the services under test."""
        return self.client.stub(contract, service)

    async def publisher(self, topic: Topic[T]) -> Publisher[T]:
        """Return a publisher that the services under test hear."""
        return await self.client.publisher(topic)

    async def publish(self, topic: Topic[T], payload: T, *, metadata: Mapping[str, str] | None = None) -> None:
        """Publish one event."""
        await (await self.publisher(topic)).publish(payload, metadata=metadata)

    async def requester(self, topic: RequestTopic[Q, P]) -> Requester[Q, P]:
        """Return a requester that the services under test answer."""
        await self.client.connect_broker()
        replies = Replies(self._options.broker, self._options.codecs, uuid4().hex)
        self._stack.push_async_callback(replies.close)
        requester = Requester(topic)
        requester.bind(replies, source=self._options.name, timeout=self._options.request_timeout)
        return requester

    async def watch(self, topic: Topic[T]) -> Watch[T]:
        """Watch a topic: every event published from now on."""
        await self.client.connect_broker()
        watch: Watch[T] = Watch()
        consumer = Consumer(topic, watch.handle)
        await consumer.start(self._options.broker, self._options.codecs)
        self._stack.push_async_callback(consumer.close)
        return watch


@asynccontextmanager
async def run(*services: Service, **pinned: Any) -> AsyncIterator[App]:
    """Run services in a world of their own: memory broker, registry and transport unless `pinned` says otherwise.

    Everything is as in production but for those plugins: bytes are encoded and decoded, calls go through the
    transport, stopping drains. Two runs, even at the same time, don't see each other.
    """
    world = f"memory://world-{next(_worlds)}"
    async with AsyncExitStack() as stack:
        for service in services:
            await stack.enter_async_context(service.started(_options(service.name, world, pinned)))
        app = App(_options("ketch.test", world, pinned), stack)
        await stack.enter_async_context(app.client)
        yield app


def _options(name: str, world: str, pinned: Mapping[str, Any]) -> Options:
    defaults = {"broker": world, "registry": world, "transport": world, "server_name": name}
    return build(read((), {}), {**defaults, **pinned})
