"""Roll: the instances that were heard of, each until its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ...registry import Instance

#: Instances that one watch knows; more are skipped.
_MOST: Final = 200_000


class Roll:
    """What one watch knows, where no server keeps it.

    Args:
        name: what instances have to answer to; None for anything.

    Attributes:
        bound: nobody's time is over before.
    """

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._known: dict[str, tuple[Instance, float]] = {}
        self.bound = float("inf")

    def hear(self, instance: Instance, until: float) -> bool:
        """Know an instance until a time of the event loop; tell whether that is news."""
        known = self._known.get(instance.id)
        if self._name is not None and not instance.answers_to(self._name):
            return self.drop(instance.id)  # it may have moved to another service
        if known is None and len(self._known) >= _MOST:
            return False
        self.bound = min(self.bound, until)
        self._known[instance.id] = instance, max(until, known[1] if known is not None else 0.0)
        return known is None or known[0] != instance

    def drop(self, id_: str) -> bool:
        """Know an instance no more; tell whether it was known."""
        return self._known.pop(id_, None) is not None

    def overdue(self, now: float) -> list[str]:
        """Return the ids of those whose time is over."""
        if now < self.bound:
            return []
        self.bound = min((until for _, until in self._known.values()), default=float("inf"))
        return [id_ for id_, (_, until) in self._known.items() if until <= now]

    def snapshot(self) -> tuple[Instance, ...]:
        """Return the instances that are known."""
        return tuple(instance for instance, _ in self._known.values())
