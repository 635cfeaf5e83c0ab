"""Group: the events of one topic for one group, and who takes them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from ...broker import Delivery, Outcome, Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...message import Message

#: Events, and bytes of their bodies, that wait in a group.
CAPACITY = 65_536
CAPACITY_BYTES = 64 * 1024 * 1024


class Group:
    """Events that wait, and the members that they are dealt out to in turns."""

    def __init__(self) -> None:
        self.members: deque[Member] = deque()
        self._backlog: deque[Delivery] = deque()
        self._bytes = 0
        self._writable = asyncio.Event()
        self._timers: set[asyncio.TimerHandle] = set()

    @property
    def full(self) -> bool:
        """Whether it takes no more events just now."""
        return len(self._backlog) >= CAPACITY or self._bytes >= CAPACITY_BYTES

    async def room(self) -> None:
        """Wait until it isn't full."""
        while self.full:
            self._writable.clear()
            await self._writable.wait()

    def put(self, message: Message) -> None:
        """Take an event in."""
        delivery = Delivery(message)
        if self._backlog or not self._deal(delivery):
            self._backlog.append(delivery)
            self._bytes += len(message.body)

    def _deal(self, delivery: Delivery) -> bool:
        members = self.members
        for _ in range(len(members)):
            member = members[0]
            members.rotate(-1)
            if member.offer(delivery):
                return True
        return False

    def pump(self) -> None:
        """Deal out what waits, as far as members have room."""
        backlog = self._backlog
        while backlog and self._deal(backlog[0]):
            self._bytes -= len(backlog.popleft().message.body)
        if not self.full:
            self._writable.set()

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Take in again what a member did not settle, ahead of what waits."""
        for delivery in reversed(deliveries):
            self._backlog.appendleft(delivery)
            self._bytes += len(delivery.message.body)
        self.pump()

    def give_back_later(self, delivery: Delivery, seconds: float) -> None:
        """Take it in again after a while."""
        self.later(seconds, lambda: self.give_back([delivery]))

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something after a while, unless the group ends first."""

        def due() -> None:
            self._timers.discard(timer)
            act()

        timer = asyncio.get_running_loop().call_later(seconds, due)
        self._timers.add(timer)

    def end(self) -> None:
        """Forget what was to come later."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()


class Member(Subscription):
    """One member's share."""

    def __init__(self, group: Group, prefetch: int) -> None:
        self._group = group
        self._limit = prefetch
        self._queue: deque[Delivery] = deque()
        self._taken: dict[int, Delivery] = {}
        self._readable = asyncio.Event()
        self._stopped = False

    def offer(self, delivery: Delivery) -> bool:
        """Take a delivery, if there is room."""
        if self._stopped or len(self._queue) + len(self._taken) >= self._limit:
            return False
        self._queue.append(delivery)
        self._readable.set()
        return True

    async def receive(self) -> Sequence[Delivery]:
        """Return what was dealt out to this member."""
        while not self._queue:
            if self._stopped:
                return ()
            self._readable.clear()
            await self._readable.wait()
        batch = list(self._queue)
        self._queue.clear()
        for delivery in batch:
            self._taken[id(delivery)] = delivery
        return batch

    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Forget what is done; give the rest back."""
        group = self._group
        again: list[Delivery] = []
        for delivery, outcome in settled:
            if self._taken.pop(id(delivery), None) is None or outcome is Outcome.DONE:
                continue
            fresh = Delivery(delivery.message, delivery.attempt + 1)
            if delivery.retry_after > 0:
                group.give_back_later(fresh, delivery.retry_after)
            else:
                again.append(fresh)
        group.give_back(again)

    async def limit(self, unsettled: int) -> None:
        """Take fewer or more events ahead."""
        self._limit = unsettled
        self._group.pump()

    async def stop(self) -> None:
        """Take no more."""
        if not self._stopped:
            self._stopped = True
            self._group.members.remove(self)
            self._readable.set()

    async def close(self) -> None:
        """Give back what was not settled."""
        await self.stop()
        again = [Delivery(delivery.message, delivery.attempt + 1) for delivery in self._taken.values()]
        again += self._queue
        self._taken.clear()
        self._queue.clear()
        self._group.give_back(again)
