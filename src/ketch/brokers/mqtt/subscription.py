"""Subscription: what comes from a subscription's sessions, and what became of it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from typing import TYPE_CHECKING, cast

from ...broker import Delivery, Outcome, Subscription
from ...errors import BrokerError, BrokerUnavailable
from ...message import Message
from ...pattern import is_pattern, regex
from .envelope import Headers, ketch_topic
from .presence import LEAVING, PREFIX, new_client_id
from .session import Session, Terms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .config import Config
    from .packets import Publish

log = logging.getLogger("ketch.broker")

#: Most deliveries that one `receive` returns.
_BATCH = 512

#: Events, and bytes of their bodies, that wait here at QoS 0; with more the server has to wait.
_CAPACITY = 65_536
_CAPACITY_BYTES = 64 * 1024 * 1024


class MqttSubscription(Subscription):
    """One member's share.

    MQTT has no way to give an event back. So what is to come again waits here, and comes again to this member; to the
    server it stays unacknowledged, and goes to another member should this one vanish.
    """

    def __init__(
        self,
        config: Config,
        topic: str,
        terms: Terms,
        *,
        leave: Callable[[MqttSubscription], None],
        hear: Callable[[], Awaitable[bool]],
    ) -> None:
        """Describe it.

        Args:
            config: where, and who we are.
            topic: the topic or pattern.
            terms: what its sessions subscribe to.
            leave: called when it is closed.
            hear: waits until all that was said of the group's sessions has been heard; whether it has.
        """
        self._config = config
        self._topic = topic
        self._pattern = regex(topic) if is_pattern(topic) else None
        self.terms = terms
        self._leave = leave
        self._hear = hear
        self._limit = terms.prefetch
        self._sessions: list[Session] = []
        self._waiting: deque[Delivery] = deque()
        self._bytes = 0
        self._paused = False
        self._hand: set[Delivery] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._readable = asyncio.Event()
        self._news = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._stopping = self._stopped = self._closed = False

    # --- beginning

    async def open(self) -> None:
        """Subscribe, with a session that waits for somebody or with a new one.

        Raises:
            BrokerError: the server can't be reached, or refuses.
        """
        presence = self.terms.presence
        await self._join((presence.claim() or presence.new()) if presence else new_client_id())
        if presence is not None:
            presence.news.add(self._news)
            self._news.set()
            self._watching = asyncio.create_task(self._watch(), name=f"ketch mqtt sessions of {self._topic}")

    async def _join(self, client_id: str) -> None:
        session = Session(self._config, self.terms, client_id, self._take, self._replaced)
        try:
            await session.link.open()
        except BaseException:
            if self.terms.presence is not None:
                self.terms.presence.give_up(client_id)
            raise
        self._sessions.append(session)

    async def _watch(self) -> None:
        """Take over what others left; say now and then that ours are looked after."""
        presence = self.terms.presence
        due = asyncio.get_running_loop().time() + self._config.keepalive
        while presence is not None:
            try:
                async with asyncio.timeout_at(due):
                    await self._news.wait()
            except TimeoutError:
                for session in self._sessions:
                    session.say()
                due += self._config.keepalive
            self._news.clear()
            # Several members hear of it: with luck one has taken it before the others look.
            await asyncio.sleep(random.uniform(0.02, 0.3))  # noqa: S311 - jitter
            while not self._stopping and (client_id := presence.claim()) is not None:
                try:
                    await self._join(client_id)
                    log.info("mqtt: took over what a member left of %s", self._topic)
                except BrokerError as error:
                    log.warning("mqtt: can't take over what a member left of %s: %s", self._topic, error)
                    break

    def _replaced(self, session: Session) -> bool:
        """Go on without a session that somebody else took, unless it is our only one."""
        void = [delivery for delivery in self._waiting if _origin(delivery)[0] is session]
        for delivery in void:
            self._waiting.remove(delivery)
        if len(self._sessions) > 1:
            self._sessions.remove(session)
            return False
        return True

    # --- coming

    def _take(self, session: Session, events: list[Publish]) -> None:
        if self._stopped and self._config.qos:
            return  # unacknowledged, it is for whoever gets the session next
        pattern = self._pattern
        held = session.held
        for event in events:
            topic = ketch_topic(event.topic)
            if pattern is not None and (event.topic.startswith(PREFIX) or pattern.fullmatch(topic) is None):
                if event.id:
                    del held[event.id]
                    session.acknowledge([event.id])
                continue
            message = Message(topic, Headers(event.properties), event.payload)
            if event.id:
                held[event.id] = delivery = Delivery(message, raw=(session, event.id))
            else:
                delivery = Delivery(message, raw=(session, 0))
                self._bytes += len(event.payload)
            self._waiting.append(delivery)
        self._readable.set()
        if not self._config.qos and (len(self._waiting) >= _CAPACITY or self._bytes >= _CAPACITY_BYTES):
            self._pause()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            log.warning("mqtt: a subscriber of %s doesn't keep up; the server has to wait, and may drop", self._topic)
            for session in self._sessions:
                session.pause()

    async def receive(self) -> Sequence[Delivery]:
        """Return what is there, as far as the prefetch allows."""
        while True:
            room = min(self._limit - len(self._hand), _BATCH) if self._config.qos else _BATCH
            if self._waiting and room > 0:
                return self._batch(room)
            if self._stopped and not self._waiting:
                return ()
            self._readable.clear()
            await self._readable.wait()

    def _batch(self, room: int) -> list[Delivery]:
        waiting = self._waiting
        if room >= len(waiting):
            batch = list(waiting)
            waiting.clear()
        else:
            batch = [waiting.popleft() for _ in range(room)]
        if self._config.qos:
            self._hand.update(batch)
        else:
            self._bytes -= sum(len(delivery.message.body) for delivery in batch)
            if self._paused and len(waiting) < _CAPACITY // 2 and self._bytes < _CAPACITY_BYTES // 2:
                self._paused = False
                for session in self._sessions:
                    session.resume()
        return batch

    # --- settling

    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Acknowledge what is done; let the rest come again."""
        if not self._config.qos:
            return
        done: dict[Session, list[int]] = {}
        for delivery, outcome in settled:
            if delivery not in self._hand:
                continue
            self._hand.discard(delivery)
            session, id = _origin(delivery)  # noqa: A001 - MQTT's word
            if id and session.held.get(id) is not delivery:
                continue  # the server has given it to somebody else
            if outcome is Outcome.AGAIN:
                self._again(session, id, delivery)
            elif id:
                del session.held[id]
                done.setdefault(session, []).append(id)
        for session, ids in done.items():
            session.acknowledge(ids)
        self._readable.set()

    def _again(self, session: Session, id: int, delivery: Delivery) -> None:  # noqa: A002 - MQTT's word
        fresh = Delivery(delivery.message, delivery.attempt + 1, (session, id))
        if id:
            session.held[id] = fresh

        def due() -> None:
            self._timers.discard(timer)
            if not self._stopped and (not id or session.held.get(id) is fresh):
                self._waiting.append(fresh)
                self._readable.set()

        timer = asyncio.get_running_loop().call_later(max(delivery.retry_after, 0.0), due)
        self._timers.add(timer)

    async def limit(self, unsettled: int) -> None:
        """Hand out fewer or more; what the server sends ahead was settled at the beginning."""
        self._limit = min(unsettled, self.terms.prefetch)
        self._readable.set()

    # --- ending

    async def stop(self) -> None:
        """Leave the topic to the others; without others events wait in our session."""
        if self._stopping:
            return
        self._stopping = True
        try:
            if not await self._keeps_place():
                await asyncio.gather(*(session.unsubscribe() for session in self._sessions))
        except BrokerUnavailable as error:
            log.info("mqtt: left %s without the server's answer: %s", self._topic, error)
        finally:
            self._stopped = True
            self._readable.set()

    async def _keeps_place(self) -> bool:
        """Tell whether we are the last to leave; of several that leave at the same time, one is."""
        presence = self.terms.presence
        if presence is None:
            return False
        for session in self._sessions:
            session.say(LEAVING)
        said = await asyncio.gather(*(session.round_trip() for session in self._sessions))
        if not all(said) or not await self._hear():
            return True
        return not presence.others([session.client_id for session in self._sessions])

    async def close(self) -> None:
        """Give back what was not settled: the sessions are left to whoever comes."""
        if self._closed:
            return
        self._closed = True
        await self.stop()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._waiting.clear()
        self._hand.clear()
        await asyncio.gather(*(self._leave_session(session) for session in self._sessions))
        if self.terms.presence is not None:
            self.terms.presence.news.discard(self._news)
        self._leave(self)

    async def _leave_session(self, session: Session) -> None:
        await session.leave(forget=self.terms.presence is None or await session.empty())

    @property
    def trouble(self) -> str:
        """Why the server can't be reached."""
        return next((session.link.trouble for session in self._sessions if session.link.trouble), "")


def _origin(delivery: Delivery) -> tuple[Session, int]:
    """Return a delivery's session and id, as `_take` has put them; the id is 0 where its publisher chose QoS 0."""
    return cast("tuple[Session, int]", delivery.raw)
