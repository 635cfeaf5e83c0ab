"""Letters: the dead letters of a broker, as a member of the group that keeps them."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from ..broker import DEAD_LETTERS, Broker, Delivery, Outcome, Subscription
from ..deadletter import DeadLetter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from ..message import Message

#: Most letters that are looked at in one go: all of them are in hand meanwhile.
MOST: Final = 10_000

#: Letters settled together.
_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter in hand."""

    delivery: Delivery
    said: DeadLetter

    @property
    def message(self) -> Message:
        """The letter as it travels."""
        return self.delivery.message

    @property
    def id(self) -> str:
        """The event's id; for an event without one, which a plain client published, a digest."""
        return self.message.id or hashlib.sha256(self.message.body + self.said.time.encode()).hexdigest()[:16]


class Letters:
    """Takes the dead letters, and gives back those that nothing is decided about.

    Args:
        broker: open.
        topic: the dead letters' topic.
        quiet: seconds without another one after which there is none.
    """

    def __init__(self, broker: Broker, topic: str, quiet: float) -> None:
        self._broker = broker
        self._topic = topic
        self._quiet = quiet
        self._subscription: Subscription
        self._kept: list[Letter] = []
        self._settled: list[tuple[Delivery, Outcome]] = []
        self._decided = 0

    async def __aenter__(self) -> Self:
        self._subscription = await self._broker.subscribe(self._topic, group=DEAD_LETTERS, prefetch=MOST)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if self._decided and self._kept and not self._broker.capabilities.selective:
                await self._write_again()
            await self._settle()
        finally:
            await self._subscription.close()

    async def read(self) -> AsyncIterator[Letter]:
        """Yield all letters that are there, `MOST` at most."""
        count = 0
        while count < MOST:
            try:
                async with asyncio.timeout(self._quiet):
                    batch = await self._subscription.receive()
            except TimeoutError:
                return
            for delivery in batch:
                count += 1
                yield Letter(delivery, DeadLetter.read(delivery.message))

    def keep(self, letter: Letter) -> None:
        """Leave a letter where it is."""
        self._kept.append(letter)

    async def drop(self, letter: Letter) -> None:
        """Have a letter forgotten."""
        self._decided += 1
        self._settled.append((letter.delivery, Outcome.DONE))
        if len(self._settled) >= _BATCH:
            await self._settle()

    async def replay(self, letter: Letter) -> None:
        """Publish a letter's event again, for the group that gave it up, and have the letter forgotten."""
        await self._broker.publish(letter.said.replay(letter.message))
        await self.drop(letter)

    async def _settle(self) -> None:
        settled, self._settled = self._settled, []
        if settled:
            await self._subscription.settle(settled)

    async def _write_again(self) -> None:
        # A log settles everything up to a point. So that the ones decided about don't come back, the others, which
        # stand between them, are appended to it anew.
        for letter in self._kept:
            await self._broker.publish(letter.said.letter(letter.message, self._topic))
            self._settled.append((letter.delivery, Outcome.DONE))


def chosen(letter: Letter, ids: Sequence[str], topic: str | None, group: str | None) -> bool:
    """Tell whether a letter is among those asked for."""
    return (
        (not ids or letter.id in ids)
        and (topic is None or letter.said.topic == topic)
        and (group is None or letter.said.group == group)
    )
