"""Progress: which offsets of a partition are settled, so that only what precedes every unsettled one is committed."""

from __future__ import annotations

from collections import deque


class Progress:
    """One partition as one member holds it, from its assignment to its end.

    Attributes:
        position: the offset to commit: everything before it is settled.
        committed: what was committed last.
        current: whether the partition is still this member's.
        last: the last offset that was received.
    """

    __slots__ = ("_done", "_taken", "committed", "current", "last", "position")

    def __init__(self) -> None:
        self.position: int | None = None
        self.committed: int | None = None
        self.current = True
        self.last = -1
        self._taken: deque[int] = deque()
        self._done: set[int] = set()

    def take(self, offset: int) -> None:
        """Note that an offset was received; they come in order, with gaps where the log was compacted."""
        self._taken.append(offset)
        self.last = offset

    def settle(self, offset: int) -> None:
        """Note that an offset is settled."""
        taken, done = self._taken, self._done
        done.add(offset)
        while taken and taken[0] in done:
            first = taken.popleft()
            done.discard(first)
            self.position = first + 1

    @property
    def unsettled(self) -> int:
        """How many were received and not settled."""
        return len(self._taken) - len(self._done)

    @property
    def to_commit(self) -> int | None:
        """The offset to commit, None if that was done."""
        return None if self.position == self.committed else self.position
