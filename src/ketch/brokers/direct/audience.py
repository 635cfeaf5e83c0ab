"""Audience: who gets a topic's next event, as the registry has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...registry import Instance

#: What one process is to get: its address and the ids of its subscriptions.
Targets: TypeAlias = "Sequence[tuple[str, tuple[str, ...]]]"


class Audience:
    """Everyone without a group, and one member of each group in turn.

    `snapshot` is what it was made from; the members of a group are told apart by address and id.
    """

    def __init__(self, snapshot: tuple[Instance, ...]) -> None:
        self.snapshot = snapshot
        self._turn = 0
        everyone = [i for i in snapshot if "group" not in i.metadata]
        groups: dict[str, list[Instance]] = {}
        for instance in snapshot:
            if "group" in instance.metadata:
                groups.setdefault(instance.metadata["group"], []).append(instance)
        # Groups of one never take turns: with only those, the targets are always the same.
        self._fixed = everyone + [members[0] for members in groups.values() if len(members) == 1]
        self._shared = [members for members in groups.values() if len(members) > 1]
        self._always = _by_address(self._fixed)

    def next(self) -> Targets:
        """Return the targets of the next event."""
        if not self._shared:
            return self._always
        self._turn += 1
        return _by_address([*self._fixed, *(members[self._turn % len(members)] for members in self._shared)])


def _by_address(instances: Sequence[Instance]) -> Targets:
    ids: dict[str, list[str]] = {}
    for instance in instances:
        ids.setdefault(instance.address, []).append(instance.id)
    return [(address, tuple(subscriptions)) for address, subscriptions in ids.items()]
