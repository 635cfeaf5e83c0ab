"""NATS core: connecting, publishing, subscribing."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from typing import TYPE_CHECKING, ClassVar, Self

from nats import errors

from ...broker import PREFETCH, Broker, Capabilities, Site, Subscription
from ...errors import BrokerError, BrokerUnavailable, MessageTooLarge, SubscriptionRefused
from ...nats.config import Config
from ...nats.driver import Driver, explain, unexpected
from ...nats.wire import Sink, Writer, round_trip
from .envelope import native, unwrap, wrap
from .subscription import NatsSubscription

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...message import Message
    from ...url import Url

log = logging.getLogger("ketch.broker")

#: A subject to publish to: tokens between dots, without white space, control characters and wildcards.
_SUBJECT = re.compile(r"(?!.*(?:^|\.)[*>](?:\.|$))[^\s\x00-\x20\x7f.]+(?:\.[^\s\x00-\x20\x7f.]+)*")

#: Subjects that are remembered as checked.
_KNOWN_SUBJECTS = 4096


class NatsBroker(Broker):
    """Carries events over NATS core, at most once. A group is a queue group."""

    name = "nats"
    capabilities: ClassVar[Capabilities] = Capabilities(ordered=True, wildcards=True, max_message_size=1024 * 1024)

    def __init__(self, config: Config, *, reconnected: Callable[[], None] | None = None) -> None:
        self._config = config
        self._reconnected = reconnected
        self._client: Driver | None = None
        self._connected = asyncio.Event()
        self._refusals: deque[str] = deque(maxlen=64)
        self._subjects: set[str] = set()
        self._trouble = ""
        self._subscriptions: list[NatsSubscription] = []
        self.sinks: dict[int, Sink] = {}
        self._writer = Writer()
        self._closing = False
        self._wrap = config.envelope == "go-micro"
        self._read = unwrap if self._wrap else native

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `nats://host:port`; see `config.py` for the options."""
        return cls(Config.from_url(url))

    @property
    def location(self) -> str:
        """The servers, without credentials."""
        return self._config.location

    @property
    def trouble(self) -> str:
        """Whether the connection is lost just now."""
        if self._client is None or self._connected.is_set():
            return ""
        return f"the connection to {self.location} is lost"

    async def open(self, site: Site) -> None:
        """Connect to one of the servers."""
        if self._client is not None:
            return
        self._closing = False
        self._connected = asyncio.Event()
        self._trouble = ""
        client = Driver(self._config, self.sinks)
        try:
            await client.join(
                site.service,
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnect,
                reconnected_cb=self._on_reconnect,
            )
        except (TimeoutError, OSError, errors.Error) as error:
            self._closing = True
            await client.leave()
            raise self._refused(error) from error
        self._connected.set()
        self._client = client

    # what JetStream needs of the connection

    @property
    def client(self) -> Driver:
        """The driver's client.

        Raises:
            BrokerUnavailable: the broker isn't open.
        """
        return self._open_client()

    async def listen(self, subject: str, sink: Sink) -> None:
        """Have what comes on a subject handed to a sink, until the broker is closed."""
        client = self._open_client()
        driver = await client.subscribe(subject, cb=unexpected)
        self.sinks[driver._id] = sink  # noqa: SLF001 - the id that messages come with

    async def check(self, topic: str) -> None:
        """Check a subject to publish to, and wait for a connection that was lost.

        Raises:
            BrokerUnavailable: it doesn't come back within the timeout.
            BrokerError: it is no subject.
        """
        client = self._open_client()
        if topic not in self._subjects:
            self._check_subject(topic)
        if not client.is_connected:
            await self._reconnection(topic)

    async def send(self, command: bytes) -> None:
        """Hand a command to the driver, which writes it within this turn of the event loop."""
        client = self._open_client()
        await client._send_command(command)  # noqa: SLF001 - as its `publish` ends
        flusher = client._flush_queue  # noqa: SLF001
        if flusher is not None and flusher.empty():
            await client._flush_pending()  # noqa: SLF001

    def _refused(self, error: Exception) -> BrokerError:
        who, why = explain(error, self._trouble)
        return (BrokerError if who else BrokerUnavailable)(f"{self.location}: {why}")

    async def publish(self, message: Message, *, delay: float = 0.0) -> None:  # noqa: ARG002 - it declares no delay
        """Hand the event to the driver, which writes it within this turn of the event loop."""
        client = self._open_client()
        if message.topic not in self._subjects or not client.is_connected:
            await self.check(message.topic)
        command = None if self._wrap else self._writer.command(message)
        if command is None or len(command) > client.max_payload:
            await self._publish_any(client, message)
        else:
            await client._send_command(command)  # noqa: SLF001 - as its `publish` ends
            flusher = client._flush_queue  # noqa: SLF001
            if flusher is not None and flusher.empty():
                await client._flush_pending()  # noqa: SLF001

    def _check_subject(self, topic: str) -> None:
        # It is written into the protocol's line: white space or an empty token would break the connection or,
        # from an untrusted source, smuggle a command in.
        if _SUBJECT.fullmatch(topic) is None:
            raise BrokerError(f"{self.location}: {topic!r} is no subject to publish to")
        if len(self._subjects) < _KNOWN_SUBJECTS:
            self._subjects.add(topic)

    async def _publish_any(self, client: Driver, message: Message) -> None:
        data, headers = (wrap(message), None) if self._wrap else (message.body, dict(message.headers) or None)
        _check_size(client, data, headers)
        try:
            await client.publish(message.topic, data, headers=headers)
        except (errors.OutboundBufferLimitError, errors.ConnectionClosedError, errors.ConnectionDrainingError) as error:
            raise BrokerUnavailable(f"{self.location}: {error}") from error
        except (errors.Error, ValueError) as error:
            raise BrokerError(f"{self.location}: can't publish to {message.topic}: {error}") from error

    async def _reconnection(self, topic: str) -> None:
        try:
            async with asyncio.timeout(self._config.timeout):
                await self._connected.wait()
        except TimeoutError:
            raise BrokerUnavailable(
                f"{self.location}: publishing to {topic} waited {self._config.timeout:g} s for the connection"
            ) from None

    async def subscribe(
        self,
        topic: str,
        *,
        group: str | None,
        prefetch: int = PREFETCH,  # noqa: ARG002 - at most once: nothing is unsettled
        since: float | None = None,  # noqa: ARG002 - it declares no replay
    ) -> Subscription:
        """Subscribe, and wait until the server has it."""
        client = self._open_client()
        subscription = NatsSubscription(topic, self._read)
        self._refusals.clear()
        try:
            driver = await client.subscribe(topic, queue=group or "", cb=unexpected)
            subscription.attach(client, driver, self.sinks)
            await round_trip(client, self._config.timeout)
        except (errors.BadSubjectError, ValueError) as error:
            raise SubscriptionRefused(f"{self.location}: {topic} is no subject: {error}") from error
        except (errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnavailable(f"{self.location}: can't subscribe to {topic}: {error}") from error
        self._check_refusal(topic)
        self._subscriptions.append(subscription)
        return subscription

    def _check_refusal(self, topic: str) -> None:
        for refusal in self._refusals:
            if f'"{topic.lower()}"' in refusal.lower():
                raise SubscriptionRefused(f"{self.location}: {refusal}")

    async def close(self) -> None:
        """Unsubscribe, send what was published, disconnect."""
        client, self._client = self._client, None
        if client is None:
            return
        self._closing = True
        await asyncio.gather(*(subscription.close() for subscription in self._subscriptions))
        self._subscriptions.clear()
        self.sinks.clear()
        if client.is_connected:
            try:
                await round_trip(client, self._config.timeout)
            except (errors.Error, TimeoutError, OSError) as error:
                log.warning("nats: closed before %s had everything: %s", self.location, error)
        await client.leave()

    def _open_client(self) -> Driver:
        if self._client is None:
            raise BrokerUnavailable("nats: the broker isn't open")
        return self._client

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, errors.SlowConsumerError):
            log.warning("nats: a subscriber of %s doesn't keep up; the driver drops messages", error.subject)
        elif "permissions violation" in str(error).lower():
            if "subscription to" in str(error).lower():
                self._refusals.append(str(error))
            log.error("nats: %s", error)
        elif not self._connected.is_set():
            if "authorization" not in self._trouble.lower():  # what comes after it is its consequence
                self._trouble = str(error) or type(error).__name__
        else:
            log.warning("nats: %s: %s", self.location, str(error) or type(error).__name__)

    async def _on_disconnect(self) -> None:
        if not self._closing and self._connected.is_set():
            self._connected.clear()
            log.warning("nats: lost %s, trying on", self.location)

    async def _on_reconnect(self) -> None:
        self._connected.set()
        log.warning("nats: %s is back; subscriptions go on", self.location)
        if self._reconnected is not None:
            self._reconnected()


def _check_size(client: Driver, data: bytes, headers: dict[str, str] | None) -> None:
    # The server counts headers too, and cuts the connection of whoever exceeds its limit.
    size = len(data) + sum(len(name.encode()) + len(value.encode()) + 4 for name, value in (headers or {}).items()) + 12
    if size > client.max_payload:
        raise MessageTooLarge(f"{size} bytes are over the server's limit of {client.max_payload}")
