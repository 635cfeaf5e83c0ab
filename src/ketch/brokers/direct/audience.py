"""Audience: who gets a topic's next event, as the registry has it."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...registry import Instance

#: A topic and the ids of one process's subscriptions that are to get an event of it.
Run: TypeAlias = tuple[str, tuple[str, ...]]

#: What each process is to get, by address.
Targets: TypeAlias = "Sequence[tuple[str, Run]]"

#: Turns that are worked out once and kept; with more members than that each event's are worked out anew.
_KEPT = 256


class Audience:
    """Everyone without a group, and one member of each group in turn.

    The first turn is anybody's: otherwise programs that publish one event and end would all choose the same member.
    """

    def __init__(self, topic: str, instances: Iterable[Instance]) -> None:
        self._topic = topic
        self._everyone: list[Instance] = []
        groups: dict[str, list[Instance]] = {}
        for instance in instances:
            if "group" in instance.metadata:
                groups.setdefault(instance.metadata["group"], []).append(instance)
            else:
                self._everyone.append(instance)
        self._groups = list(groups.values())
        self._turns = math.lcm(*map(len, self._groups))
        self._turn = random.randrange(self._turns)  # noqa: S311 - to spread load, not to keep a secret
        self._kept = [self._targets(turn) for turn in range(self._turns)] if self._turns <= _KEPT else None

    def next(self) -> Targets:
        """Return the targets of the next event."""
        self._turn = turn = (self._turn + 1) % self._turns
        return self._kept[turn] if self._kept is not None else self._targets(turn)

    def _targets(self, turn: int) -> Targets:
        ids: dict[str, list[str]] = {}
        for instance in [*self._everyone, *(members[turn % len(members)] for members in self._groups)]:
            ids.setdefault(instance.address, []).append(instance.id)
        return [(address, (self._topic, tuple(subscriptions))) for address, subscriptions in ids.items()]
