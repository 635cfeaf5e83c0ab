"""Feed: the instances that a registry knows at the moment, and everyone who watches them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from ..registry import Instance


class Feed:
    """The latest snapshot of a registry, fanned out to its watchers. It belongs to one event loop.

    However many watchers there are, a change costs one comparison and one wake-up; nothing is queued, so a
    slow watcher misses what was between and gets the latest.
    """

    def __init__(self) -> None:
        self._instances: tuple[Instance, ...] = ()
        self._answers: dict[str, tuple[Instance, ...]] = {}
        self._changed = asyncio.Event()
        self._ended = False
        self._error: BaseException | None = None

    def publish(self, instances: Iterable[Instance]) -> None:
        """Make `instances` the latest snapshot, ordered by service and id; wake watchers if it is new."""
        latest = tuple(sorted(instances, key=_order))
        if latest != self._instances:
            self._instances = latest
            self._answers = {}
            self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """End every watch: after what it yielded last, or with `error`."""
        self._ended = True
        self._error = error
        self._wake()

    def select(self, name: str | None) -> tuple[Instance, ...]:
        """Return the instances that answer to `name`, or all of them for None."""
        if name is None:
            return self._instances
        if name not in self._answers:
            self._answers[name] = tuple(instance for instance in self._instances if instance.answers_to(name))
        return self._answers[name]

    async def watch(self, name: str | None) -> AsyncGenerator[tuple[Instance, ...], None]:
        """Yield what answers to `name`, as `Registry.watch` has it, until `end`."""
        seen = None
        while not self._ended:
            changed = self._changed
            latest = self.select(name)
            if latest != seen:
                seen = latest
                yield latest
            else:
                await changed.wait()
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _order(instance: Instance) -> tuple[str, str]:
    return instance.service, instance.id
