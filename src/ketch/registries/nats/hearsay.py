"""Hearsay: records that no server keeps. Instances announce themselves, and watchers ask those who are there."""

from __future__ import annotations

import asyncio
from random import uniform
from typing import TYPE_CHECKING, Final

from ...errors import RegistryError
from ..complaints import Complaints
from .roll import Roll

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection

    from ...nats.wire import Received
    from ...registry import Instance
    from .dialect import Dialect
    from .link import Link

#: Seconds without a further answer after which the first snapshot is taken, and the longest that it is waited for.
_QUIET: Final = 0.15
_LONGEST_FIRST: Final = 2.0

#: Answers to one question that are asked for within the time to live of those who only speak when asked.
_ROUNDS: Final = 3

#: Bytes of garbage that it is known again by.
_SHOWN: Final = 100

_LONGEST_LIFE: Final = 86_400.0


class Hearsay:
    """What is said and heard, in one dialect.

    An announcement is seen by watchers at once. An instance that isn't heard of for its time to live is forgotten, once
    the server has confirmed that nothing is on its way. All are asked again each time to live, and three times as often
    while some are known that only speak when they are asked.

    Args:
        link: to the server.
        dialect: subjects and messages.
        ttl: seconds.
    """

    def __init__(self, link: Link, dialect: Dialect, ttl: float) -> None:
        self._link = link
        self._dialect = dialect
        self._ttl = ttl
        self._said: dict[str, Instance] = {}
        self._complaints = Complaints(link.access.location)

    def forget(self) -> None:
        """Nothing is remembered of the server."""

    async def check(self) -> None:
        """See that the server is there.

        Raises:
            RegistryError: it doesn't answer.
        """
        await self._link.settle()

    async def write(self, instances: Collection[Instance]) -> None:
        """Announce instances.

        Raises:
            RegistryError: one can't be told of, or the server refuses or is away.
        """
        messages = self._dialect.announcements(instances)
        changed = [(self._said[one.id], one) for one in instances if self._said.get(one.id, one) != one]
        gone = [message for before, after in changed for message in self._dialect.moved(before, after)]
        await self._say([*gone, *messages])
        self._said.update({instance.id: instance for instance in instances})

    async def remove(self, instances: Collection[Instance]) -> None:
        """Say that instances go.

        Raises:
            RegistryError: the server refuses or is away.
        """
        await self._say(self._dialect.farewells([self._said.get(one.id, one) for one in instances]))
        for instance in instances:
            self._said.pop(instance.id, None)

    async def _say(self, messages: list[tuple[str, bytes, bytes]]) -> None:
        await self._link.tell(messages)
        await self._link.settle()
        for subject, _, _ in messages[:1]:
            if refusal := self._link.refusal(subject):
                raise RegistryError(f"{self._link.access.location}: {refusal}")

    async def follow(self, name: str | None) -> AsyncGenerator[tuple[Instance, ...], None]:
        """Yield what answers to `name`, as `Mirror` wants it.

        Raises:
            RegistryError: the connection is lost, or we may not listen.
        """
        inbox = self._link.inbox()
        subjects = self._dialect.subjects(name)
        ear = await self._link.hear(inbox, *subjects)
        try:
            await self._link.settle()
            if refusal := next(filter(None, map(self._link.refusal, subjects)), ""):
                raise RegistryError(f"{self._link.access.location}: {refusal}")
            clock = asyncio.get_running_loop().time
            roll, asking = Roll(name), _Asking(clock())
            known = False
            while True:
                now = clock()
                if now >= asking.due:
                    await self._link.tell(self._dialect.questions(name), inbox)
                    asking.asked(now, self._ttl)
                batch = await ear.receive(_QUIET if not known else max(0.01, min(asking.due, roll.bound) - now))
                changed = self._read(roll, asking, batch)
                if known and roll.overdue(clock()):
                    await self._link.settle()  # what was said before is heard now; else the connection is lost
                    changed = self._read(roll, asking, await ear.receive(0.0)) or changed
                    for id_ in roll.overdue(clock()):
                        changed = roll.drop(id_) or changed
                first = not known and (not batch or asking.nobody or clock() > asking.since + _LONGEST_FIRST)
                known = known or first
                if first or (known and changed):
                    yield roll.snapshot()
        finally:
            await ear.close()

    def _read(self, roll: Roll, asking: _Asking, batch: list[Received]) -> bool:
        changed = False
        now = asyncio.get_running_loop().time()
        for subject, headers, body, _ in batch:
            if headers is not None and headers.status.startswith("503"):
                asking.nobody = True
                continue
            try:
                heard = self._dialect.read(subject, b"" if headers is None else headers.raw, body)
            except RegistryError as error:
                self._complaints.make(body[:_SHOWN], error)
                continue
            for news in heard:
                if news.gone:
                    changed = roll.drop(news.instance.id) or changed
                else:
                    asking.often = asking.often or not news.lives
                    changed = roll.hear(news.instance, now + min(news.lives or self._ttl, _LONGEST_LIFE)) or changed
        return changed


class _Asking:
    """When to ask."""

    def __init__(self, now: float) -> None:
        self.since = now
        self.due = now
        self.nobody = False  # the server says that there is nobody to ask
        self.often = False  # somebody is known who only speaks when asked

    def asked(self, now: float, ttl: float) -> None:
        every = ttl / _ROUNDS if self.often else ttl
        self.due = now + uniform(0.8 * every, every)  # noqa: S311 - spreading needs no secret
        self.often = False
