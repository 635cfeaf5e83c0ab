"""Records: what this process has registered; all of it is written anew in time, so nothing that is lost stays lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import record
from .shelf import shelves_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from ...registry import Instance
    from .shelf import Shelf
    from .store import Store

#: What goes into one script: the server serves nobody else meanwhile.
_MOST_RECORDS = 500
_MOST_BYTES = 1024 * 1024


class Records:
    """Calls are made one after the other: `Upkeep.lock` sees to that."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._filed: dict[str, Instance] = {}

    async def write(self, instances: Collection[Instance]) -> None:
        """See to it that the instances are there for another time to live.

        Raises:
            RegistryError: the server can't be written.
        """
        shelves: dict[Shelf, list[tuple[str, bytes]]] = {}
        for instance in instances:
            data = record.encode(instance)
            for shelf in shelves_of(self._prefix, instance):
                shelves.setdefault(shelf, []).append((instance.id, data))
        await self._store.write((shelf, batch) for shelf, pairs in shelves.items() for batch in _batches(pairs))
        for instance in instances:
            await self._move(instance)

    async def remove(self, instance: Instance) -> None:
        """Take an instance's record away; not if it is another process's by now, where it was ours before.

        Raises:
            RegistryError: the server can't be written; a record of ours goes by itself then.
        """
        filed = self._filed.pop(instance.id, None)
        data = b"" if filed is None else record.encode(filed)
        shelves = shelves_of(self._prefix, instance if filed is None else filed)
        await self._store.remove(shelves, instance.id, data)

    async def _move(self, instance: Instance) -> None:
        """Take an instance from where it no longer belongs."""
        before = self._filed.get(instance.id, instance)
        if before is not instance:
            here = shelves_of(self._prefix, instance)
            left = [shelf for shelf in shelves_of(self._prefix, before) if shelf not in here]
            await self._store.remove(left, instance.id, record.encode(before))
        self._filed[instance.id] = instance


def _batches(pairs: list[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    batch: list[tuple[str, bytes]] = []
    size = 0
    for pair in pairs:
        if batch and (len(batch) >= _MOST_RECORDS or size + len(pair[1]) > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(pair)
        size += len(pair[1])
    if batch:
        yield batch
