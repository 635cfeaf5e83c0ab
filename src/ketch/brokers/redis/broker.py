"""Redis pub/sub: connecting, publishing, subscribing."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar, Self

from hiredis import ReplyError

from ...broker import PREFETCH, Broker, Capabilities, Site, Subscription
from ...errors import BrokerUnavailable, MessageTooLarge, SubscriptionRefused
from ...resp.config import OPTIONS, Config
from ...resp.connection import pack
from ...resp.link import Link
from ...resp.refusal import refusal
from .channels import Channels, ChannelSubscription
from .envelope import wrap

if TYPE_CHECKING:
    from ...message import Message
    from ...url import Url

log = logging.getLogger("ketch.broker")

#: Half of what the server holds for a subscriber before it cuts it off (`client-output-buffer-limit pubsub 32mb …`).
_MAX_BODY = 16 * 1024 * 1024

#: Published and not yet answered by the server: what one publisher may be ahead, in messages and in bytes.
_AHEAD = 1024
_AHEAD_BYTES = 1024 * 1024

#: Topics that are remembered as allowed.
_KNOWN_TOPICS = 4096


class RedisBroker(Broker):
    """Carries events over Redis's channels, at most once. There are no groups: every subscription gets every event.

    `publish` returns once the event is on its way; only the first of a topic waits for the server's answer, which is
    where a user without the right to publish is told so.
    """

    name = "redis"
    capabilities: ClassVar[Capabilities] = Capabilities(
        ordered=True, groups=False, wildcards=True, max_message_size=_MAX_BODY
    )

    def __init__(self, config: Config) -> None:
        self._config = config
        self._out: Link | None = None
        self._in: Link | None = None
        self._channels = Channels()
        self._topics: set[str] = set()
        self._ahead = self._ahead_bytes = 0
        self._room = asyncio.Event()

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `redis://host:port`; see `resp/config.py` for the options."""
        url.only(*OPTIONS)
        return cls(Config.from_url(url))

    @property
    def location(self) -> str:
        """The server."""
        return self._config.location

    @property
    def trouble(self) -> str:
        """Whether a connection is lost just now."""
        return next((link.trouble for link in (self._out, self._in) if link is not None and link.trouble), "")

    async def open(self, site: Site) -> None:
        """Connect: one connection to publish, one to subscribe."""
        if self._out is not None:
            return
        name = f"ketch/{site.service}/{site.instance_id}"
        self._channels = channels = Channels()
        out = Link(self._config, name)
        incoming = Link(self._config, f"{name}/in", greet=channels.greet, pushed=channels.take, quiet=True)
        channels.link = incoming
        await out.open()
        try:
            await incoming.open()
        except BaseException:
            await out.close()
            raise
        self._topics.clear()
        self._ahead = self._ahead_bytes = 0
        self._room = asyncio.Event()
        self._out, self._in = out, incoming

    async def publish(self, message: Message, *, delay: float = 0.0) -> None:  # noqa: ARG002 - it declares no delay
        """Send the event."""
        link = self._out
        if link is None:
            raise BrokerUnavailable("redis: the broker isn't open")
        if len(message.body) > _MAX_BODY:
            raise MessageTooLarge(f"{len(message.body)} bytes are over redis's limit of {_MAX_BODY}")
        packed = pack(("PUBLISH", message.topic, wrap(message)))
        connection = await link.up()
        if message.topic not in self._topics:
            await self._publish_first(message.topic, connection.send(packed))
            return
        while self._ahead >= _AHEAD or self._ahead_bytes >= _AHEAD_BYTES:
            self._room.clear()
            await self._room.wait()
        connection = await link.up()
        size = len(packed)
        self._ahead += 1
        self._ahead_bytes += size
        connection.send(packed).add_done_callback(lambda reply: self._answered(reply, size))

    async def _publish_first(self, topic: str, reply: asyncio.Future[int]) -> None:
        try:
            await reply
        except ReplyError as error:
            raise refusal(self.location, f"can't publish to {topic}", error) from error
        if len(self._topics) < _KNOWN_TOPICS:
            self._topics.add(topic)

    def _answered(self, reply: asyncio.Future[int], size: int) -> None:
        self._ahead -= 1
        self._ahead_bytes -= size
        self._room.set()
        if not reply.cancelled() and isinstance(error := reply.exception(), ReplyError):
            # A right that was taken away, say: the next event of a topic is asked for its answer again.
            self._topics.clear()
            log.error("redis: %s refused an event: %s", self.location, error)

    async def subscribe(
        self,
        topic: str,
        *,
        group: str | None,
        prefetch: int = PREFETCH,  # noqa: ARG002 - at most once: nothing is unsettled
        since: float | None = None,  # noqa: ARG002 - it declares no replay
    ) -> Subscription:
        """Subscribe, and wait until the server has it."""
        link = self._in
        if link is None:
            raise BrokerUnavailable("redis: the broker isn't open")
        if group is not None:
            raise SubscriptionRefused(f"redis: pub/sub has no groups, so none {group!r}; redis-streams has")
        mailbox = ChannelSubscription(topic, self._channels)
        try:
            await self._channels.join(mailbox, link.call)
        except ReplyError as error:
            raise SubscriptionRefused(str(refusal(self.location, f"can't subscribe to {topic}", error))) from error
        return mailbox

    async def close(self) -> None:
        """Unsubscribe, send what was published, disconnect."""
        out, self._out = self._out, None
        incoming, self._in = self._in, None
        if out is None or incoming is None:
            return
        await self._channels.close()
        if out.connection is not None:
            try:
                await out.connection.request("PING")
            except (BrokerUnavailable, ReplyError) as error:
                log.warning("redis: closed before %s had everything: %s", self.location, error)
        await incoming.close()
        await out.close()
