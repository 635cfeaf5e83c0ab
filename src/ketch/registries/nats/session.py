"""Session: what a registry on NATS has between `open` and `close`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from ...errors import RegistryError
from ..mirror import Mirror
from ..record import encode
from ..upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ...registry import Instance
    from ..mirror import Follow
    from .config import Config
    from .link import Link

log = logging.getLogger("ketch.registry")

#: Renewals for each time to live.
RENEWALS = 3


class Records(Protocol):
    """Where instances are told of. What it can't do it says by `RegistryError`."""

    async def check(self) -> object:
        """See that it can be used."""

    async def write(self, instances: Collection[Instance]) -> None:
        """Tell of instances, new ones and known ones alike."""

    async def remove(self, instances: Collection[Instance]) -> None:
        """Tell that instances go."""

    def forget(self) -> None:
        """Take nothing for granted: the connection is a new one."""


class Answerer(Protocol):
    """Who answers questions about instances that are registered here."""

    async def check(self) -> str:
        """Begin to listen; return why that is refused, "" when it isn't."""

    async def serve(self, instance: Instance) -> None:
        """Answer for an instance, or by its new record."""

    async def retire(self, instance: Instance) -> None:
        """Answer for it no more."""


class Session:
    """One connection, and all that goes over it.

    Args:
        config: how it is set.
        link: the connection, not open; it tells `back` when it has come back.
        records: see `Records`.
        follow: watches a name.
        answerers: who has to be allowed to answer.
        courtesies: who answers where it is allowed.
    """

    def __init__(
        self,
        config: Config,
        link: Link,
        records: Records,
        follow: Follow,
        answerers: Sequence[Answerer] = (),
        courtesies: Sequence[Answerer] = (),
    ) -> None:
        place = config.access.location
        self._place = place
        self._link = link
        self._records = records
        self._answerers = list(answerers)
        self._courtesies = courtesies
        self._upkeep = Upkeep(records.write, config.ttl / RENEWALS, place)
        self.mirror = Mirror(follow, place, keep=config.ttl)
        link.back = self._back

    @property
    def trouble(self) -> str:
        """Why it is out of touch."""
        return self.mirror.trouble or self._upkeep.trouble

    async def open(self) -> None:
        """Connect, and see that all that is needed may be used.

        Raises:
            RegistryError: it may not, or there is no server.
        """
        await self._link.open()
        await self._records.check()
        for answerer in self._answerers:
            if refusal := await answerer.check():
                raise RegistryError(f"{self._place}: {refusal}")
        for answerer in self._courtesies:
            if refusal := await answerer.check():
                log.warning("%s: NATS's tools won't see this service: %s", self._place, refusal)
            else:
                self._answerers.append(answerer)

    async def register(self, instance: Instance) -> None:
        """Tell of an instance, and answer for it.

        Raises:
            RegistryError: the server doesn't take it.
        """
        encode(instance)  # it can be told, as whoever answers takes for granted
        before = self._upkeep.held.get(instance.id)
        try:
            # Before it is told of: with the server's word for that, those who hear of it can ask.
            for answerer in self._answerers:
                await answerer.serve(instance)
            await self._upkeep.add(instance)
        except RegistryError:
            for answerer in self._answerers:
                await (answerer.retire(instance) if before is None else answerer.serve(before))
            raise

    async def deregister(self, instance: Instance) -> None:
        """Answer no more, and say so.

        Raises:
            RegistryError: the server doesn't take it.
        """
        async with self._upkeep.lock:
            held = self._upkeep.held.pop(instance.id, instance)
            for answerer in self._answerers:
                await answerer.retire(held)
            await self._records.remove((held,))

    async def close(self) -> None:
        """Take away what is registered here, end the watches, disconnect."""
        await self.mirror.close()
        left = await self._upkeep.close()
        if left:
            try:
                for answerer in self._answerers:
                    for instance in left:
                        await answerer.retire(instance)
                await self._records.remove(left)
            except RegistryError as error:
                log.warning("records at NATS aren't removed, they go by themselves after their time to live: %s", error)
        await self._link.close()

    def _back(self) -> None:
        self._records.forget()
        self._upkeep.renew_now()
