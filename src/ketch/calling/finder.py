"""Finder: from a service's name to the candidates for its calls, with channels to them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..directory import Directory
from ..errors import DeadlineExceeded, Unreachable
from ..pool import Pool
from .roster import Roster
from .subset import Subset

if TYPE_CHECKING:
    from ..policy import Policies
    from ..registry import Registry
    from ..transport import Transport
    from .plan import Plan


class Finder:
    """Knows the instances of the services that are called, and keeps the channels to them.

    Args:
        registry, transport: open ones.
        policies: how many instances of a service are used, and when one is left alone.
        id_: this client's, which decides on the subset that it uses.
    """

    def __init__(self, registry: Registry, transport: Transport, policies: Policies, id_: str) -> None:
        self._registry = registry
        self._policies = policies
        self._id = id_
        self._directory = Directory(registry, transport.name, self._changed)
        self._pool = Pool(transport, self._addresses)
        self._rosters: dict[str, Roster] = {}
        self._change = asyncio.Event()

    def start(self) -> None:
        """Begin; the registry and the transport are open."""
        self._change = asyncio.Event()
        self._pool.start()

    async def close(self) -> None:
        """Close the channels and look no further. Closing twice is no error."""
        await self._directory.close()
        for roster in self._rosters.values():
            await roster.close()
            roster.learn(())
        await self._pool.close()

    def roster(self, service: str) -> Roster:
        """Return the roster of a service; it is empty before `look`."""
        roster = self._rosters.get(service)
        if roster is None:
            policy = self._policies.of(service)
            narrow = Subset(self._id, policy.subset or 0)
            roster = self._rosters[service] = Roster(service, self._pool.channel, policy, narrow)
        return roster

    async def look(self, service: str, timeout: float | None) -> None:
        """See to it that the service's roster is filled, and kept current.

        Raises:
            Unreachable: the registry can't be read.
            DeadlineExceeded: the registry took too long.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._directory.look(service)
        except TimeoutError:
            raise DeadlineExceeded(f"{service}: not found within {timeout:g} s") from None
        roster = self.roster(service)
        known = self._directory.known(service)
        if roster.known != known:
            roster.learn(known)

    def nobody(self, plan: Plan) -> Unreachable:
        """Return the error of a call that nobody can be found for."""
        where = f"registry {self._registry.name} {self._registry.location}"
        if self._directory.known(plan.service):
            return Unreachable(f"{plan.service}: no instance in {where} fits {plan.policy.match or plan.policy.split}")
        if self._registry.trouble:
            return Unreachable(f"{plan.service}: no instance known; {self._registry.trouble}")
        return Unreachable(f"{plan.service}: no instance in {where}")

    async def wait(self, seconds: float) -> None:
        """Wait until more is known of some service, at most so long."""
        self._change.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._change.wait()
        except TimeoutError:
            return  # an instance may answer again although nothing has changed in the registry

    def _addresses(self) -> set[str]:
        return {one.instance.address for roster in self._rosters.values() for one in roster.candidates}

    def _changed(self, service: str) -> None:
        roster = self._rosters.get(service)
        if roster is not None:
            roster.learn(self._directory.known(service))
        self._change.set()
