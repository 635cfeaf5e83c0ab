"""Tally: figures of all workers. Those that have gone are still counted, so that no total ever falls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..stats import Stats, total

if TYPE_CHECKING:
    from collections.abc import Iterable


class Tally:
    """The sums over all processes that there have been.

    Attributes:
        cpu: seconds of processor time of those that have gone.
    """

    def __init__(self) -> None:
        self.cpu = 0.0
        self._gone = Stats()

    def bury(self, stats: Stats, cpu: float) -> None:
        """Keep what a process has done that has ended."""
        stats = stats.snapshot()
        for method in stats.methods:
            method.running = 0
        for topic in stats.topics:
            topic.running = 0
        self._gone = total([self._gone, stats])
        self.cpu += cpu

    def total(self, living: Iterable[Stats]) -> Stats:
        """Return the sums, those of processes that live among them."""
        return total([self._gone, *living])
