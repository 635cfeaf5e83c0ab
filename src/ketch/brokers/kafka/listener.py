"""Listener: passes on what the driver tells of rebalances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiokafka import ConsumerRebalanceListener

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aiokafka.structs import TopicPartition


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # the driver is untyped
    """Calls one function with what a member has to give up, and one with what it gets."""

    def __init__(
        self,
        revoked: Callable[[Iterable[TopicPartition]], Awaitable[None]],
        given: Callable[[Iterable[TopicPartition]], None],
    ) -> None:
        self._revoked = revoked
        self._given = given

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Give them up."""
        await self._revoked(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take them on."""
        self._given(assigned)
