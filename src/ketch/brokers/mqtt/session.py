"""Session: one subscribed session of the server's, and the connection to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import BrokerError, SubscriptionRefused
from .connection import MAX_PACKET, Connection
from .link import Link
from .packets import (
    FAILURE,
    SESSION_TAKEN_OVER,
    SHARED_AVAILABLE,
    Answer,
    Connect,
    Publish,
    acknowledge,
    publish,
    string,
    subscribe,
    unsubscribe,
)
from .presence import AWAY, Presence

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...broker import Delivery
    from .config import Config

#: Seconds that a server waits for a member that vanished before it says that its session is away.
_WILL_DELAY = 2

#: Seconds that a server keeps the session of a subscription without a group while its connection is made again.
_ALONE = 60


@dataclass(frozen=True, slots=True)
class Terms:
    """What a subscription's sessions are subscribed to, and how.

    Attributes:
        topic_filter: with its share, where there is a group.
        prefetch: events that the server sends ahead.
        presence: the group's sessions; None without a group, and at QoS 0.
    """

    topic_filter: str
    prefetch: int
    presence: Presence | None


class Session:
    """A session.

    Attributes:
        client_id: its name.
        mood: what its message says.
        held: what came and wasn't acknowledged, by its id; None until it is a delivery.
        link: the connection to it.
    """

    def __init__(
        self,
        config: Config,
        terms: Terms,
        client_id: str,
        take: Callable[[Session, list[Publish]], None],
        replaced: Callable[[Session], bool],
    ) -> None:
        """Describe it.

        Args:
            config: where, and who we are.
            terms: what it is for.
            client_id: its name.
            take: takes events that are new.
            replaced: told that somebody else took the session; whether to go on, with one of another name.
        """
        self.client_id = client_id
        self.mood = terms.presence.here if terms.presence else b""
        self.held: dict[int, Delivery | None] = {}
        self._config = config
        self._terms = terms
        self._take = take
        self._replaced = replaced
        self._connection: Connection | None = None
        self._settled: set[int] = set()
        self._subscribed = True
        self.link = Link(
            config,
            terms.topic_filter,
            hello=self._hello,
            ready=self._ready,
            on_lost=self._lost,
            wanted=self._wanted,
            on_publishes=self._came,
            on_puback=_unasked,
        )

    def _hello(self) -> Connect:
        config, presence = self._config, self._terms.presence
        will = (presence.prefix + self.client_id, AWAY) if presence else None
        expiry = config.expiry if presence else _ALONE
        return Connect(
            self.client_id,
            clean=not config.qos,
            keep_alive=config.keepalive,
            session_expiry=expiry if config.qos else 0,
            receive_maximum=self._terms.prefetch,
            maximum_packet_size=MAX_PACKET,
            username=config.username,
            password=config.password,
            will=will,
            will_delay=_WILL_DELAY if will else 0,
        )

    async def _ready(self, connection: Connection, welcome: Answer) -> None:
        if not welcome.session_present:
            self.held.clear()
            self._settled.clear()
        self._connection = connection
        self.say()
        if self._terms.topic_filter.startswith("$share/") and not welcome.properties.get(SHARED_AVAILABLE, 1):
            raise SubscriptionRefused("the server has no shared subscriptions, which groups are made of")
        if self._subscribed:
            await self._subscribe(connection)

    async def _subscribe(self, connection: Connection) -> None:
        topic_filter, qos = self._terms.topic_filter, self._config.qos
        id = connection.next_id()  # noqa: A001 - MQTT's word
        answer = await connection.ask(id, subscribe(id, topic_filter, qos), self._config.timeout)
        granted = answer.reasons[0]
        if granted >= FAILURE:
            raise SubscriptionRefused(f"the server refuses a subscription to {topic_filter}: {answer.why}")
        if granted < qos:
            raise SubscriptionRefused(f"the server only gives {topic_filter} at QoS 0; say ?qos=0 if that is enough")

    def say(self, mood: bytes | None = None) -> None:
        """Tell the group how it stands with this session, from now on or as before; b"" that it is no more."""
        if mood is not None:
            self.mood = mood
        presence = self._terms.presence
        if presence is not None and self._connection is not None:
            topic = string(presence.prefix + self.client_id)
            self._connection.write(publish(topic, b"\x00" + self.mood, retain=True))

    def _lost(self, connection: Connection) -> None:
        self._connection = None
        if connection.reason == SESSION_TAKEN_OVER and self._terms.presence is not None:
            self._terms.presence.give_up(self.client_id)

    def _wanted(self) -> bool:
        """Go on, under another name if somebody else has taken this session."""
        presence = self._terms.presence
        if presence is None or presence.is_ours(self.client_id):
            return True
        self.held.clear()
        self._settled.clear()
        if not self._replaced(self):
            return False
        self.client_id = presence.new()
        return True

    def _came(self, events: list[Publish]) -> None:
        """Take events; what is in hand already, or was settled while we were cut off, is none."""
        held = self.held
        if self._settled and (again := [event.id for event in events if event.id in self._settled]):
            events = [event for event in events if event.id not in self._settled]
            self._settled.difference_update(again)
            self.acknowledge(again)
        fresh = [event for event in events if event.id not in held]
        held.update((event.id, None) for event in fresh if event.id)
        self._take(self, fresh)

    def acknowledge(self, ids: list[int]) -> None:
        """Tell the server that events are done, now or when it is back."""
        if self._connection is not None and not self._connection.lost.done():
            self._connection.write(acknowledge(ids))
        else:
            self._settled.update(ids)

    async def unsubscribe(self) -> None:
        """Have nothing more dealt out to this session.

        Raises:
            BrokerUnavailable: the server doesn't answer.
        """
        self._subscribed = False
        connection = self._connection
        if connection is not None:
            id = connection.next_id()  # noqa: A001 - MQTT's word
            await connection.ask(id, unsubscribe(id, self._terms.topic_filter), self._config.timeout)

    def pause(self) -> None:
        """Let the server wait."""
        if self._connection is not None:
            self._connection.pause_reading()

    def resume(self) -> None:
        """Take what it sends."""
        if self._connection is not None:
            self._connection.resume_reading()

    async def round_trip(self) -> bool:
        """Have the server take what was sent, and take what it sends; whether it answered."""
        if self._connection is None:
            return False
        try:
            await self._connection.round_trip(self._config.timeout)
        except BrokerError:
            return False
        return True

    async def empty(self) -> bool:
        """Tell whether nothing waits in the session, once it isn't subscribed any more."""
        return not self._subscribed and not self.held and await self.round_trip() and not self.held

    async def leave(self, *, forget: bool) -> None:
        """Disconnect: leave the session to others, or end it."""
        self.say(b"" if forget else AWAY)
        await self.link.close(forget=forget)
        presence = self._terms.presence
        if presence is not None:
            presence.give_up(self.client_id)


def _unasked(id: int, reason: int) -> None:  # noqa: A002 - as a connection's callback
    """Take a confirmation: of nothing, since a session's connection publishes at QoS 0 only."""
