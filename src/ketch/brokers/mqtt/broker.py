"""MQTT: connecting, publishing, subscribing."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar, Self

from ...broker import PREFETCH, Broker, Capabilities, Site, Subscription
from ...errors import BrokerError, BrokerUnavailable, SubscriptionRefused
from . import packets
from .config import Config
from .connection import MAX_BODY, MAX_PACKET, Connection
from .envelope import Writer, share_name, topic_filter
from .link import Link
from .presence import PREFIX, Presence, new_client_id
from .publisher import Publisher
from .session import Terms
from .subscription import MqttSubscription

if TYPE_CHECKING:
    from ...message import Message
    from ...url import Url

log = logging.getLogger("ketch.broker")

#: Signs of life of a session that may be missed before it counts as away.
_MISSED = 3.5


class MqttBroker(Broker):
    """Carries events over MQTT 5, at least once; with `?qos=0` at most once. A group is a shared subscription."""

    name = "mqtt"
    capabilities: ClassVar[Capabilities] = Capabilities(
        redelivers=True, ordered=True, delays_redelivery=True, wildcards=True, max_message_size=MAX_BODY
    )

    def __init__(self, config: Config) -> None:
        if not config.qos:
            self.capabilities = Capabilities(ordered=True, wildcards=True, max_message_size=MAX_BODY)  # type: ignore[misc]  # one that is told to do less promises less
        self._config = config
        self._writer = Writer()
        self._link: Link | None = None
        self._publisher = Publisher(config.qos, config.timeout, config.location)
        self._presences: dict[str, Presence] = {}
        self._subscriptions: set[MqttSubscription] = set()

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `mqtt://host:port`; see `config.py` for the options."""
        return cls(Config.from_url(url))

    @property
    def location(self) -> str:
        """The servers, without credentials."""
        return self._config.location

    @property
    def trouble(self) -> str:
        """Whether the connection is lost just now."""
        return self._link.trouble if self._link is not None else ""

    async def open(self, site: Site) -> None:  # noqa: ARG002 - nothing of the program is needed
        """Connect to one of the servers."""
        if self._link is not None:
            return
        client_id = new_client_id()
        link = Link(
            self._config,
            "publishing",
            hello=lambda: self._hello(client_id),
            ready=self._ready,
            on_lost=self._lost,
            on_publishes=self._came,
            on_puback=self._publisher.confirmed,
        )
        await link.open()
        self._link = link

    def _hello(self, client_id: str) -> packets.Connect:
        config = self._config
        return packets.Connect(
            client_id,
            clean=True,
            keep_alive=config.keepalive,
            session_expiry=0,
            receive_maximum=0xFFFF,
            maximum_packet_size=MAX_PACKET,
            username=config.username,
            password=config.password,
        )

    async def _ready(self, connection: Connection, welcome: packets.Answer) -> None:
        for presence in self._presences.values():
            await self._watch(connection, presence)
        self._publisher.attach(connection, welcome)

    def _lost(self, connection: Connection) -> None:  # noqa: ARG002 - as a link's callback
        self._publisher.detach()
        for presence in self._presences.values():
            presence.deaf()

    def _came(self, events: list[packets.Publish]) -> None:
        """Take the messages of groups' sessions, the only ones that come here."""
        for event in events:
            prefix, slash, client_id = event.topic.rpartition("/")
            presence = self._presences.get(prefix + slash)
            if presence is not None:
                presence.heard(client_id, event.payload)

    async def publish(self, message: Message, *, delay: float = 0.0) -> None:  # noqa: ARG002 - it declares no delay
        """Send the event; at QoS 1, wait until the server has it."""
        if self._link is None:
            raise BrokerUnavailable("mqtt: the broker isn't open")
        writer = self._writer
        await self._publisher.publish(writer.topic(message.topic), writer.tail(message), len(message.body))

    async def subscribe(
        self,
        topic: str,
        *,
        group: str | None,
        prefetch: int = PREFETCH,
        since: float | None = None,  # noqa: ARG002 - it declares no replay
    ) -> Subscription:
        """Subscribe over a connection of its own, and wait until the server has it."""
        if self._link is None:
            raise BrokerUnavailable("mqtt: the broker isn't open")
        wanted = topic_filter(topic)
        presence = None
        try:
            if group is not None:
                share = share_name(group)
                presence = await self._join(share, wanted) if self._config.qos else None
                wanted = f"$share/{share}/{wanted}"
            terms = Terms(wanted, min(max(prefetch, 1), 0xFFFF), presence)
            subscription = MqttSubscription(self._config, topic, terms, leave=self._left, hear=self._hear)
            await subscription.open()
        except BaseException:
            if presence is not None:
                self._part(presence)
            raise
        self._subscriptions.add(subscription)
        return subscription

    async def _join(self, share: str, wanted: str) -> Presence:
        """Return the group's sessions, as the server knows them now."""
        fresh = Presence(share, wanted, _MISSED * self._config.keepalive)
        presence = self._presences.setdefault(fresh.prefix, fresh)
        presence.users += 1
        try:
            connection = self._connection()
            await self._watch(connection, presence)
            await connection.round_trip(self._config.timeout)
        except BaseException:
            self._part(presence)
            raise
        return presence

    def _part(self, presence: Presence) -> None:
        """Watch a group's sessions no longer, once nobody here is its member."""
        presence.users -= 1
        if not presence.users:
            self._presences.pop(presence.prefix, None)
            connection = self._link.connection if self._link is not None else None
            if connection is not None:
                id = connection.next_id(self._publisher.used)  # noqa: A001 - MQTT's word
                connection.write(packets.unsubscribe(id, presence.prefix + "+"))

    def _connection(self) -> Connection:
        connection = self._link.connection if self._link is not None else None
        if connection is None:
            raise BrokerUnavailable(f"{self.location}: {self.trouble}")
        return connection

    async def _watch(self, connection: Connection, presence: Presence) -> None:
        """Subscribe to the messages of a group's sessions, those that are retained first."""
        id = connection.next_id(self._publisher.used)  # noqa: A001 - MQTT's word
        packet = packets.subscribe(id, presence.prefix + "+", 1, retained=True)
        answer = await connection.ask(id, packet, self._config.timeout)
        if answer.reasons[0] >= packets.FAILURE:
            raise SubscriptionRefused(f"{self.location}: groups need to read and write {PREFIX}#: {answer.why}")

    async def _hear(self) -> bool:
        try:
            await self._connection().round_trip(self._config.timeout)
        except BrokerError:
            return False
        return True

    def _left(self, subscription: MqttSubscription) -> None:
        self._subscriptions.discard(subscription)
        if subscription.terms.presence is not None:
            self._part(subscription.terms.presence)

    async def close(self) -> None:
        """Close the subscriptions, send what was published, disconnect."""
        if self._link is None:
            return
        await asyncio.gather(*(subscription.close() for subscription in list(self._subscriptions)))
        link, self._link = self._link, None
        await self._publisher.drain()
        self._publisher.close()
        try:
            await link.close(forget=True)
        except BrokerError as error:
            log.warning("mqtt: %s went away while it was closed: %s", self.location, error)
        self._presences.clear()
