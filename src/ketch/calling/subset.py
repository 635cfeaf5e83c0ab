"""Subset: which of a service's instances one client uses, so that connections stay bounded where there are very many.

Rendezvous hashing (Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996): each client ranks the
instances by a hash of both names and takes the first ones. Clients need not know each other, an instance that leaves
is replaced by one other, and one that comes takes the place of one at most. How many clients an instance gets varies as
chance does: with 1,000 clients that use 20 of 100 instances each, some 200, seldom less than 160 or more than 240.
"""

from __future__ import annotations

from hashlib import blake2b
from heapq import nsmallest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..registry import Instance


class Subset:
    """The instances that one client uses.

    Args:
        client: its id.
        size: instances at most; 0 for all.
    """

    def __init__(self, client: str, size: int) -> None:
        self._client = client
        self._size = size
        self._ranks: dict[str, bytes] = {}

    def __call__(self, instances: Sequence[Instance]) -> Sequence[Instance]:
        """Return the subset, in the order in which the instances came."""
        if not self._size or len(instances) <= self._size:
            return instances
        before, self._ranks = self._ranks, {}
        for instance in instances:
            self._ranks[instance.id] = before.get(instance.id) or self._rank(instance.id)
        chosen = {one.id for one in nsmallest(self._size, instances, key=lambda one: self._ranks[one.id])}
        return [instance for instance in instances if instance.id in chosen]

    def _rank(self, id_: str) -> bytes:
        return blake2b(f"{self._client}\0{id_}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
