"""Responder: answers for our instances what NATS's tools ask (ADR-32, "Discovery and Status")."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from ...stats import Stats
from .micro import INFO, PREFIX, VERBS, Description, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...nats.wire import Received
    from ...registry import Instance
    from .link import Link

#: Instances by whose names tools may ask one by one; all others answer to questions that are put to everybody.
_LONGEST: Final = 3000


class Responder:
    """Hears `$SRV.PING`, `$SRV.INFO`, `$SRV.STATS`, to all, by name, and by name and id.

    An instance also answers INFO by the names of its contracts, so that those who look for one need not ask everybody.

    Args:
        link: where to hear and answer.
        ttl: seconds within which instances are announced again; 0 where they aren't.
        stats: returns the figures to tell, None before there are any.
    """

    def __init__(self, link: Link, ttl: float, stats: Callable[[], Stats | None]) -> None:
        self._link = link
        self._ttl = ttl
        self._stats = stats
        self._changing = asyncio.Lock()
        self._subjects: dict[str, tuple[str, ...]] = {}
        self._asked: dict[str, dict[str, Description]] = {f"{PREFIX}.{verb}": {} for verb in VERBS}

    async def check(self) -> str:
        """Hear what is asked of all; return why the server doesn't let us, "" when it does.

        Raises:
            RegistryError: the server doesn't answer.
        """
        for subject in self._asked:
            await self._link.answer(subject, self._take)
        await self._link.settle()
        return next((why for subject in self._asked if (why := self._link.refusal(subject))), "")

    async def serve(self, instance: Instance) -> None:
        """Answer for an instance from now on, or by its new record.

        Raises:
            RegistryError: the server is away.
        """
        async with self._changing:
            await self._serve(instance)

    async def _serve(self, instance: Instance) -> None:
        described = Description(instance, self._ttl, datetime.now(UTC).isoformat().replace("+00:00", "Z"))
        subjects = _subjects(described, instance)
        before = self._subjects.get(instance.id, ())
        self._subjects[instance.id] = subjects
        for subject in subjects:
            if subject not in self._asked:
                await self._link.answer(subject, self._take)
                self._asked[subject] = {}
            self._asked[subject][instance.id] = described
        await self._leave(instance.id, set(before).difference(subjects))

    async def retire(self, instance: Instance) -> None:
        """Answer for an instance no more."""
        async with self._changing:
            await self._leave(instance.id, self._subjects.pop(instance.id, ()))

    async def _leave(self, id_: str, subjects: tuple[str, ...] | set[str]) -> None:
        for subject in subjects:
            served = self._asked.get(subject)
            if served is None:
                continue  # the server was away when it was to be heard
            served.pop(id_, None)
            if not served and subject.count(".") > 1:
                del self._asked[subject]
                await self._link.leave(subject)

    async def _take(self, batch: list[Received]) -> None:
        stats = self._stats() or Stats()
        answers = []
        for subject, _, _, reply in batch:
            verb = subject.split(".")[1]
            if reply:
                answers += [
                    (reply.decode("utf-8", "replace"), b"", described.answer(verb, stats), "")
                    for described in self._asked.get(subject, {}).values()
                ]
        if answers:
            await self._link.offer(answers)


def _subjects(described: Description, instance: Instance) -> tuple[str, ...]:
    endings = ("", f".{described.name}", f".{described.name}.{described.id}")
    subjects = [f"{PREFIX}.{verb}{ending}" for verb in VERBS for ending in endings]
    subjects += [f"{PREFIX}.{INFO}.{plain(contract)}" for contract in instance.contracts]
    return tuple(dict.fromkeys(subject for subject in subjects if len(subject) <= _LONGEST))
