"""Progress: which offsets of a partition are settled, so that only what precedes every unsettled one is committed."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...broker import Delivery


class Progress:
    """One partition as one member holds it, from its assignment to its end.

    Attributes:
        position: the offset to commit: everything before it is settled.
        committed: what was committed last.
        current: whether the partition is still this member's.
        waiting: how many were given back and wait to be delivered again.
    """

    __slots__ = ("_done", "_last", "_latest", "_seen", "_taken", "committed", "current", "position", "waiting")

    def __init__(self) -> None:
        self.position: int | None = None
        self.committed: int | None = None
        self.current = True
        self.waiting = 0
        self._last = self._seen = self._latest = -1
        self._taken: deque[int] = deque()
        self._done: set[int] = set()

    def fits(self, offset: int, timestamp: int) -> bool:
        """Tell whether a record can be of the log that the others were of.

        A server that lost its data, or a topic that was made anew, begins at 0 again. Then offsets go back without a
        rebalance, or belong to events that are later than all before.
        """
        return offset > self._last or (offset > self._seen and timestamp <= self._latest)

    def take(self, offset: int, timestamp: int) -> bool:
        """Note what was received; tell whether it is new.

        Offsets come in order, with gaps where the log was compacted. After a rebalance the driver begins anew at what
        is committed: what comes again then is in hand, or settled, already.
        """
        self._seen = offset
        if offset <= self._last:
            return False
        self._last = offset
        self._latest = max(self._latest, timestamp)
        self._taken.append(offset)
        return True

    def begin_anew(self) -> None:
        """Expect from now on that records come again."""
        self._seen = -1

    def settle(self, offset: int) -> None:
        """Note that an offset is settled."""
        taken, done = self._taken, self._done
        done.add(offset)
        while taken and taken[0] in done:
            first = taken.popleft()
            done.discard(first)
            self.position = first + 1

    @property
    def span(self) -> int:
        """How many were received since the first that is unsettled."""
        return len(self._taken)

    @property
    def in_hand(self) -> int:
        """How many were delivered, and neither settled nor given back."""
        return len(self._taken) - len(self._done) - self.waiting

    @property
    def to_commit(self) -> int | None:
        """The offset to commit, None if that was done."""
        return None if self.position == self.committed else self.position


def progress_of(delivery: Delivery) -> Progress:
    """Return the progress of the partition that a delivery came from."""
    raw: Any = delivery.raw
    progress: Progress = raw[1]
    return progress
