"""JetStream: events that are kept, at least once."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import msgspec
from nats import errors

from ...broker import PREFETCH, Broker, Capabilities, Site, Subscription
from ...errors import BrokerError, BrokerUnavailable, ConfigurationError, MessageTooLarge
from ...message import Message
from ...nats.config import OPTIONS, Config
from ...nats.wire import Writer
from ...url import Url
from .broker import NatsBroker
from .pull import PullSubscription
from .streams import SCHEDULES, Streams

if TYPE_CHECKING:
    from ...nats.wire import Received

log = logging.getLogger("ketch.broker")

_OWN_OPTIONS: Final = ("stream", "keep", "replicas", "ack_wait")

#: The server that first could hold messages back: 2.12.
_SCHEDULES_SINCE: Final = (2, 12)

#: The server's `max_payload` by default, less what headers take; with a larger one, larger messages could go.
_MAX_BODY: Final = 1024 * 1024 - 4096


@dataclass(frozen=True, slots=True)
class _Storage:
    """The options that are JetStream's own; see `Streams`."""

    stream: str
    keep: float
    replicas: int
    ack_wait: float

    @classmethod
    def from_url(cls, url: Url) -> Self:
        keep, replicas, ack_wait = url.number("keep", 7 * 86_400), url.number("replicas", 1), url.number("ack_wait", 30)
        if keep < 0 or ack_wait < 1 or replicas not in range(1, 6):
            raise ConfigurationError("jetstream: keep is 0 or more seconds, ack_wait 1 or more, replicas 1 to 5")
        return cls(url.options.get("stream", ""), keep, int(replicas), ack_wait)


class JetStreamBroker(Broker):
    """Carries events through JetStream, at least once. A group is a durable pull consumer.

    The connection is that of `nats`, with its options. What `publish` returned from, the server has stored.
    """

    name = "jetstream"
    capabilities: ClassVar[Capabilities] = Capabilities(
        durable=True,
        redelivers=True,
        ordered=True,
        counts=True,
        delays_redelivery=True,
        replay=True,
        max_delay=365 * 86_400.0,
        wildcards=True,
        max_message_size=_MAX_BODY,
    )

    def __init__(self, config: Config, storage: _Storage) -> None:
        self._config = config
        self._storage = storage
        self._nats = NatsBroker(config, reconnected=self._reconnected)
        self._writer = Writer()
        self._streams: Streams
        self._subscriptions: list[PullSubscription] = []
        self._inbox = ""
        self._count = 0
        self._confirmations: dict[str, asyncio.Future[bool]] = {}

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `jetstream://host:port`; see the options of `nats`, and `_Storage`."""
        url.only(*OPTIONS, *_OWN_OPTIONS)
        own = {name: value for name, value in url.options.items() if name not in _OWN_OPTIONS}
        if own.get("envelope", "cloudevents") != "cloudevents":
            raise ConfigurationError("jetstream: events have the envelope cloudevents")
        config = Config.from_url(Url("nats", url.address, url.path, url.username, url.password, own))
        return cls(config, _Storage.from_url(url))

    @property
    def location(self) -> str:
        """The servers, without credentials."""
        return self._config.location

    @property
    def trouble(self) -> str:
        """Whether the connection is lost just now."""
        return self._nats.trouble

    async def open(self, site: Site) -> None:
        """Connect to one of the servers."""
        if self._inbox:
            return
        await self._nats.open(site)
        client = self._nats.client
        self._streams = Streams(
            client,
            self.location,
            self._config.timeout,
            stream=self._storage.stream,
            keep=self._storage.keep,
            replicas=self._storage.replicas,
            ack_wait=self._storage.ack_wait,
        )
        self._inbox = client.new_inbox()
        await self._nats.listen(f"{self._inbox}.*", self._confirm)

    # publishing

    async def publish(self, message: Message, *, delay: float = 0.0) -> None:
        """Have the event stored; at return it is."""
        if not self._inbox:
            raise BrokerUnavailable("jetstream: the broker isn't open")
        await self._nats.check(message.topic)
        if len(message.body) > _MAX_BODY:
            raise MessageTooLarge(f"{len(message.body)} bytes are over JetStream's limit of {_MAX_BODY}")
        deadline = asyncio.get_running_loop().time() + self._config.timeout
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    if not self._streams.known(message.topic):
                        await self._streams.stream_of(message.topic)
                    if await self._stored(message, delay):
                        return
                    # Nobody takes the subject: the stream is gone, say with the server's disk.
                    self._streams.forget()
        except TimeoutError:
            raise BrokerUnavailable(
                f"{self.location}: storing an event of {message.topic} took more than {self._config.timeout:g} s"
            ) from None

    async def _stored(self, message: Message, delay: float) -> bool:
        """Send an event and wait for the server's word; False when no stream took it."""
        self._count += 1
        token = str(self._count)
        reply = f"{self._inbox}.{token}"
        if delay > 0:
            command = await self._scheduled(message, reply, delay)
        else:
            command = self._writer.confirmed(message, reply)
        if len(command) > self._nats.client.max_payload:
            raise MessageTooLarge(f"{len(command)} bytes with headers are over {self.location}'s limit")
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._confirmations[token] = future
        try:
            await self._nats.send(command)
            return await future
        finally:
            self._confirmations.pop(token, None)

    async def _scheduled(self, message: Message, reply: str, delay: float) -> bytes:
        client = self._nats.client
        version = (client.connected_server_version.major, client.connected_server_version.minor)
        if version < _SCHEDULES_SINCE:
            raise BrokerError(f"{self.location}: publishing for later needs NATS 2.12, and this is {version}")
        stream = await self._streams.stream_of(message.topic)
        at = (datetime.now(UTC) + timedelta(seconds=delay)).isoformat().replace("+00:00", "Z")
        subject = f"{SCHEDULES}.{stream}.{self._inbox.rpartition('.')[2]}-{self._count}"
        extra = f"Nats-Schedule: @at {at}\r\nNats-Schedule-Target: {message.topic}\r\n"
        return self._writer.confirmed(Message(subject, message.headers, message.body), reply, extra)

    async def _confirm(self, batch: list[Received]) -> None:
        for subject, headers, body, _ in batch:
            future = self._confirmations.get(subject.rpartition(".")[2])
            if future is None or future.done():
                continue
            if headers is not None and headers.status:
                future.set_result(False)  # 503: nobody takes the subject
            elif (error := self._refusal(body)) is not None:
                future.set_exception(error)
            else:
                future.set_result(True)

    def _refusal(self, body: bytes) -> Exception | None:
        if b'"error"' not in body:
            return None
        try:
            error: dict[str, Any] = msgspec.json.decode(body).get("error") or {}
        except (msgspec.DecodeError, AttributeError):
            return BrokerError(f"{self.location}: the server's word can't be read")
        return BrokerError(f"{self.location}: {error.get('description', 'it was not stored')}") if error else None

    # subscribing

    async def subscribe(
        self, topic: str, *, group: str | None, prefetch: int = PREFETCH, since: float | None = None
    ) -> Subscription:
        """Join the group's consumer, made if it is new."""
        if not self._inbox:
            raise BrokerUnavailable("jetstream: the broker isn't open")
        subscription = PullSubscription(self._streams, topic, group, prefetch, self._storage.ack_wait)
        try:
            await subscription.open(self._nats.client, self._nats.sinks, since=since)
        except (errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnavailable(f"{self.location}: can't subscribe to {topic}: {error}") from error
        self._subscriptions.append(subscription)
        return subscription

    async def declare(self, topic: str, *, group: str) -> None:
        """Make the group's consumer."""
        if not self._inbox:
            raise BrokerUnavailable("jetstream: the broker isn't open")
        await self._streams.consumer(topic, group)

    def _reconnected(self) -> None:
        self._streams.forget()
        for subscription in self._subscriptions:
            subscription.reconnected()
        # What was on its way may be stored or not; the publisher's timeout is spared.
        for future in self._confirmations.values():
            if not future.done():
                future.set_exception(BrokerUnavailable(f"{self.location}: the connection was lost"))

    async def close(self) -> None:
        """Give back what isn't settled and disconnect."""
        self._inbox = ""
        await asyncio.gather(*(subscription.close() for subscription in self._subscriptions))
        self._subscriptions.clear()
        await self._nats.close()
