"""go-micro's broker `http`: subscribers are found in the registry, and get each event as a request."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, ClassVar, Final, Self
from uuid import uuid4

from ...broker import PREFETCH, Broker, Capabilities, Site, Subscription
from ...directory import Directory
from ...errors import (
    AddressUnavailable,
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    MessageTooLarge,
    RegistryError,
    Unavailable,
)
from ...grpc.address import Address
from ...mailbox import Mailbox
from ...registry import Instance
from .. import gomicro
from .peer import Peer
from .server import MAX_POST, Receiver

if TYPE_CHECKING:
    from ...message import Message
    from ...url import Url

log = logging.getLogger("ketch.broker")

#: The name that subscriptions have in the registry, and the version of those that share with nobody (broker/http.go).
_SERVICE: Final = "micro.http.broker"
_EVERYONE: Final = "ff.http.broadcast"

_MAX_BODY: Final = 4 * 1024 * 1024


class HttpBroker(Broker):
    """Carries events to subscribers that the registry knows, at most once, without encryption.

    A subscription is an instance of `micro.http.broker` with the topic as a label and its group as the version. It is
    what go-micro has by default, here for Go services that have nothing else; between services of ketch `direct` does
    the same better. The registry has to be one of go-micro's formats for the two to find each other.
    """

    name = "http"
    capabilities: ClassVar[Capabilities] = Capabilities(ordered=True, max_message_size=_MAX_BODY, subscribe_lag=0.25)

    def __init__(self, address: Address | None = None) -> None:
        self._wanted = address
        self._site: Site | None = None
        self._directory: Directory
        self._audiences: dict[str, dict[str, list[Instance]]] = {}
        self._peers: dict[str, Peer] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._receiver = Receiver()
        self._listening: asyncio.Lock

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `http://host:port`; the address is what to listen on for events, by default a free port.

        Raises:
            ConfigurationError: the address is none, or there are options.
        """
        url.only()
        try:
            return cls(Address.parse(url.address) if url.address else None)
        except AddressUnavailable as error:
            raise ConfigurationError(f"http: {error}") from None

    @property
    def location(self) -> str:
        """Where events are received, once something is subscribed to."""
        return self._receiver.address

    async def open(self, site: Site) -> None:
        """Remember the site; nothing is listened on or watched before it is needed."""
        if self._site is None:
            if site.transport.tls:
                raise BrokerError("http: events would travel in plain text, though calls are encrypted; take another")
            self._site = site
            self._directory = Directory(site.registry, self.name, changed=self._changed)
            self._listening = asyncio.Lock()

    async def publish(self, message: Message, *, delay: float = 0.0) -> None:  # noqa: ARG002 - it declares no delay
        """Hand the event to what sends to each process that is to get it."""
        self._open_site()
        try:
            await self._directory.look(_SERVICE)
        except Unavailable as error:
            raise BrokerUnavailable(f"http: {error}") from error
        self._open_site()  # it may have been closed meanwhile
        if len(message.body) > _MAX_BODY:
            raise MessageTooLarge(f"{len(message.body)} bytes are over http's limit of {_MAX_BODY}")
        targets = self._targets(message.topic)
        if not targets:
            return
        event = gomicro.wrap(message)
        if len(event) > MAX_POST:
            raise MessageTooLarge(f"{len(event)} bytes with headers are over http's limit of {MAX_POST}")
        for instance in targets:
            peer = self._peers.get(instance.address)
            if peer is None:
                peer = self._peers[instance.address] = Peer(instance.address)
            await peer.offer(instance.id, event)

    def _targets(self, topic: str) -> list[Instance]:
        """Return everyone without a group, and any one of each group."""
        groups = self._audiences.get(topic, {})
        shared = [random.choice(members) for group, members in groups.items() if group != _EVERYONE]  # noqa: S311 - load, not secrets
        return [*groups.get(_EVERYONE, ()), *shared]

    def _changed(self, service: str) -> None:
        audiences: dict[str, dict[str, list[Instance]]] = {}
        for one in self._directory.known(service):
            if one.metadata.get("broker") == self.name and one.metadata.get("secure") != "true":
                audiences.setdefault(one.metadata.get("topic", ""), {}).setdefault(one.version, []).append(one)
        self._audiences = audiences
        for address in set(self._peers) - self._directory.addresses():
            closing = asyncio.create_task(self._peers.pop(address).close(), name=f"ketch goodbye to {address}")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def subscribe(
        self,
        topic: str,
        *,
        group: str | None,
        prefetch: int = PREFETCH,  # noqa: ARG002 - at most once: nothing is unsettled
        since: float | None = None,  # noqa: ARG002 - it declares no replay
    ) -> Subscription:
        """Listen, if nothing did yet, and register the subscription."""
        site = self._open_site()
        await self._listen(site)
        # The label `transport` keeps it out of the way of calls; go-micro's own subscriptions have none.
        labels = {"broker": self.name, "topic": topic, "secure": "false", "transport": self.name}
        id_ = f"{topic}-{uuid4()}"
        instance = Instance(_SERVICE, id_, self._receiver.address, group or _EVERYONE, metadata=labels)
        mailboxes = self._receiver.mailboxes

        async def leave() -> None:
            try:
                await site.registry.deregister(instance)
                # Those who publish have yet to hear of it; what they send until then is still taken.
                await asyncio.sleep(self.capabilities.subscribe_lag)
            except RegistryError as error:
                log.warning("%s: the subscription could not be taken off the registry: %s", topic, error)
            finally:
                mailboxes.pop(id_, None)

        mailbox = mailboxes[id_] = Mailbox(topic, leave)
        try:
            await site.registry.register(instance)
        except RegistryError as error:
            mailboxes.pop(id_, None)
            raise BrokerError(f"http: can't subscribe to {topic}: {error}") from error
        return mailbox

    async def _listen(self, site: Site) -> None:
        async with self._listening:
            if not self._receiver.address:
                await self._receiver.open(self._wanted or Address.parse(f"{site.host}:0"))

    def _open_site(self) -> Site:
        if self._site is None:
            raise BrokerUnavailable("http: the broker isn't open")
        return self._site

    async def close(self) -> None:
        """Send what was published, stop the subscriptions, stop listening."""
        if self._site is None:
            return
        self._site = None
        await self._directory.close()
        self._audiences = {}
        peers, self._peers = self._peers, {}
        await asyncio.gather(*(peer.close() for peer in peers.values()), *self._closing)
        await asyncio.gather(*(mailbox.close() for mailbox in list(self._receiver.mailboxes.values())))
        receiver, self._receiver = self._receiver, Receiver()
        await receiver.close()
