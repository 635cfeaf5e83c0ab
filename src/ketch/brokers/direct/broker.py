"""The broker without a broker: subscribers are found in the registry, events stream to them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar, Self
from uuid import uuid4

from ...broker import PREFETCH, Broker, Capabilities, Site, Subscription
from ...directory import Directory
from ...errors import BrokerError, BrokerUnavailable, MessageTooLarge, RegistryError, TransportError, Unavailable
from ...mailbox import Mailbox
from ...registry import Instance
from ...transport import MAX_MESSAGE_SIZE
from .audience import Audience
from .inbox import Inbox
from .peer import Peer
from .wire import Encoder

if TYPE_CHECKING:
    from ...message import Message
    from ...transport import Listener
    from ...url import Url

log = logging.getLogger("ketch.broker")

#: What headers, and the names of topic and subscriptions, may take of a message, in bytes.
_HEADERS = 32 * 1024
_NAMES = 32 * 1024
_MAX_BODY = MAX_MESSAGE_SIZE - _HEADERS - _NAMES
_MAX_EVENT = MAX_MESSAGE_SIZE - _NAMES

_PREFIX = "topic:"


class DirectBroker(Broker):
    """Carries events from process to process over the site's transport, at most once.

    A subscription registers as an instance of `topic:<topic>`, labelled with its group. A publisher watches those of
    the topics it publishes to, keeps one stream to each process concerned and sends events in batches, as CloudEvents
    of the protobuf format. Where the transport has TLS on one side, publishing and subscribing need the side that they
    use: no event leaves or comes in plain text then. Which topics have subscribers is for everyone to see, in the
    registry: `ketch topics`.
    """

    name = "direct"
    capabilities: ClassVar[Capabilities] = Capabilities(ordered=True, max_message_size=_MAX_BODY, subscribe_lag=0.25)

    def __init__(self, address: str = "") -> None:
        self._wanted = address
        self._site: Site | None = None
        self._directory: Directory
        self._encoder = Encoder()
        self._audiences: dict[str, Audience] = {}
        self._peers: dict[str, Peer] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._inbox = Inbox()
        self._listener: Listener | None = None
        self._listening: asyncio.Lock

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `direct://host:port`; the address is what to listen on for events, by default a free port."""
        url.only()
        return cls(url.address)

    @property
    def location(self) -> str:
        """Where events are received, once something is subscribed to."""
        return self._listener.address if self._listener is not None else ""

    async def open(self, site: Site) -> None:
        """Remember the site; nothing is listened on or watched before it is needed."""
        if self._site is None:
            self._site = site
            self._directory = Directory(site.registry, site.transport.name, changed=self._changed)
            self._listening = asyncio.Lock()

    async def publish(self, message: Message, *, delay: float = 0.0) -> None:  # noqa: ARG002 - it declares no delay
        """Put the event into the batch of each process that is to get it."""
        audience = self._audiences.get(message.topic) or await self._watch(message.topic)
        if len(message.body) > _MAX_BODY:
            raise MessageTooLarge(f"{len(message.body)} bytes are over direct's limit of {_MAX_BODY}")
        targets = audience.next()
        if not targets:
            return
        event = self._encoder.encode(message)
        if len(event) > _MAX_EVENT:
            raise MessageTooLarge(f"{len(event)} bytes with headers are over direct's limit of {_MAX_EVENT}")
        for address, run in targets:
            peer = self._peers.get(address) or self._connect(address)
            if not peer.offer(run, event):
                await peer.offer_patiently(run, event)

    async def _watch(self, topic: str) -> Audience:
        tls = self._open_site().transport.tls
        if tls.server is not None and tls.client is None:
            raise BrokerError(f"direct: {topic} would leave in plain text: with server_tls_cert set client_tls_ca too")
        try:
            await self._directory.look(_PREFIX + topic)
        except Unavailable as error:
            raise BrokerUnavailable(f"direct: {error}") from error
        self._open_site()  # it may have been closed meanwhile
        audience = self._audiences[topic] = Audience(topic, self._directory.known(_PREFIX + topic))
        return audience

    def _changed(self, service: str) -> None:
        topic = service.removeprefix(_PREFIX)
        if topic in self._audiences:
            self._audiences[topic] = Audience(topic, self._directory.known(service))
        for address in set(self._peers) - self._directory.addresses():
            closing = asyncio.create_task(self._peers.pop(address).close(), name=f"ketch goodbye to {address}")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _connect(self, address: str) -> Peer:
        channel = self._open_site().transport.connect(address)
        peer = self._peers[address] = Peer(address, channel)
        return peer

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
        tls = site.transport.tls
        if tls.client is not None and tls.server is None:
            raise BrokerError(f"direct: {topic} would come in plain text: with client_tls_ca set server_tls_cert too")
        listener = await self._listen(site)
        id_ = str(uuid4())
        labels = {"transport": site.transport.name, "service": site.service} | (
            {} if group is None else {"group": group}
        )
        instance = Instance(_PREFIX + topic, id_, listener.address, metadata=labels)

        async def leave() -> None:
            try:
                await site.registry.deregister(instance)
                if self._inbox.publishers:
                    # Those who publish have yet to hear of it; what they send until then is still taken.
                    await asyncio.sleep(self.capabilities.subscribe_lag)
            except RegistryError as error:
                log.warning("%s: the subscription could not be taken off the registry: %s", topic, error)
            finally:
                self._inbox.mailboxes.pop(id_, None)

        mailbox = self._inbox.mailboxes[id_] = Mailbox(topic, leave)
        try:
            await site.registry.register(instance)
        except RegistryError as error:
            self._inbox.mailboxes.pop(id_, None)
            raise BrokerError(f"direct: can't subscribe to {topic}: {error}") from error
        return mailbox

    async def _listen(self, site: Site) -> Listener:
        async with self._listening:
            if self._listener is None:
                try:
                    self._listener = await site.transport.listen(self._wanted or f"{site.host}:0", self._inbox.routes())
                except TransportError as error:
                    raise BrokerError(f"direct: {error}") from error
            return self._listener

    def _open_site(self) -> Site:
        if self._site is None:
            raise BrokerUnavailable("direct: the broker isn't open")
        return self._site

    async def close(self) -> None:
        """Send what was published, stop the subscriptions, stop listening."""
        if self._site is None:
            return
        # First of all nothing more is taken: what came after a peer's last batch would be lost without a word.
        self._site = None
        self._audiences.clear()
        await self._directory.close()
        peers, self._peers = self._peers, {}
        await asyncio.gather(*(peer.close() for peer in peers.values()), *self._closing)
        await asyncio.gather(*(mailbox.close() for mailbox in list(self._inbox.mailboxes.values())))
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.stop(0)
