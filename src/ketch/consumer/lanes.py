"""Lanes: which of the deliveries that wait may be handled next, so that those of one key stay in order."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

D = TypeVar("D")


class Lanes(Generic[D]):
    """Items with keys: of one key, only one is out at a time, in the order in which they were put. No key, no order.

    A slow key holds up nothing but itself, and a key costs memory only while something of it is here.
    """

    def __init__(self) -> None:
        self._ready: deque[tuple[Hashable, D]] = deque()
        self._behind: dict[Hashable, deque[D] | None] = {}
        self._waiting = 0

    def __len__(self) -> int:
        """How many wait, ready or not."""
        return len(self._ready) + self._waiting

    @property
    def ready(self) -> int:
        """How many may be taken now."""
        return len(self._ready)

    def put(self, key: Hashable, item: D) -> None:
        """Put an item; None or "" stands for no key."""
        if key is None or key == "":
            self._ready.append((None, item))
        elif key not in self._behind:
            self._behind[key] = None
            self._ready.append((key, item))
        else:
            queue = self._behind[key]
            if queue is None:
                queue = self._behind[key] = deque()
            queue.append(item)
            self._waiting += 1

    def take(self) -> tuple[Hashable, D]:
        """Take an item that is ready; its key is busy until it is `done`.

        Raises:
            IndexError: none is.
        """
        return self._ready.popleft()

    def again(self, key: Hashable, item: D) -> None:
        """Put an item that is out in front: it is to be taken again, and its key stays busy."""
        self._ready.appendleft((key, item))

    def done(self, key: Hashable) -> None:
        """Free a key: the next of its items is ready."""
        if key is None:
            return
        queue = self._behind.get(key)
        if queue:
            self._waiting -= 1
            self._ready.append((key, queue.popleft()))
        else:
            self._behind.pop(key, None)

    def drop(self, key: Hashable) -> list[D]:
        """Free a key and return its items that wait, in order; they are no longer here. None is out."""
        queue = None if key is None else self._behind.pop(key, None)
        if not queue:
            return []
        self._waiting -= len(queue)
        return list(queue)

    def clear(self) -> None:
        """Forget all that wait."""
        self._ready.clear()
        self._behind.clear()
        self._waiting = 0
