"""Ear: what comes on some subjects, until the connection is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ...errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ...nats.wire import Received


class Ear:
    """Messages of some subscriptions, in the order they came.

    Args:
        deafen: ends the subscriptions.
        most: messages that wait to be read; more of them end it, for what follows would be a tale with gaps.
    """

    def __init__(self, deafen: Callable[[Ear], Awaitable[None]], most: int) -> None:
        self.sids: list[int] = []
        self._deafen = deafen
        self._most = most
        self._heard: list[Received] = []
        self._event = asyncio.Event()
        self._lost = ""

    async def take(self, batch: list[Received]) -> None:
        """Hear messages."""
        if len(self._heard) + len(batch) > self._most:
            self.fail("more comes than can be read")
            return
        self._heard += batch
        self._event.set()

    def fail(self, why: str) -> None:
        """Let what follows be lost."""
        self._lost = self._lost or why
        self._event.set()

    async def receive(self, patience: float) -> list[Received]:
        """Return what was heard, after `patience` seconds of silence nothing.

        Raises:
            RegistryError: the connection was lost, so that there is a gap.
        """
        if not self._event.is_set():
            try:
                async with asyncio.timeout(patience):
                    await self._event.wait()
            except TimeoutError:
                return []
        if self._lost:
            raise RegistryError(self._lost)
        self._event.clear()
        heard, self._heard = self._heard, []
        return heard

    async def close(self) -> None:
        """Hear no more."""
        await self._deafen(self)
