"""consistent_hash: calls of one key go to one instance, whichever client makes them.

Each instance owns points on a ring (Karger et al., "Consistent Hashing and Random Trees", 1997), so one that comes or
goes moves only its own share of the keys. A call without a key goes anywhere.
"""

from __future__ import annotations

from bisect import bisect_right
from hashlib import blake2b
from random import choice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..selector import Candidate, Selector

#: Points of an instance: with 160 the largest share is some 1.2 times the mean.
_POINTS: Final = 160

#: Rings kept: there is one for each set of candidates, and few such sets at a time.
_RINGS: Final = 4


class _Ring:
    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.candidates = candidates  # held, so that its identity isn't another one's
        pairs = sorted(
            (_hash(f"{candidate.instance.id}#{point}"), index)
            for index, candidate in enumerate(candidates)
            for point in range(_POINTS)
        )
        self._points = [point for point, _ in pairs]
        self._owners = [index for _, index in pairs]

    def owner(self, key: str) -> Candidate:
        at = bisect_right(self._points, _hash(key))
        return self.candidates[self._owners[at % len(self._owners)]]


def consistent_hash() -> Selector:
    """Return a selector that goes by the call's key."""
    rings: dict[int, _Ring] = {}

    def select(candidates: Sequence[Candidate], key: str) -> Candidate:
        if not key or len(candidates) == 1:
            return choice(candidates)  # noqa: S311 - spreading load is no secret
        ring = rings.get(id(candidates))
        if ring is None or ring.candidates is not candidates:
            if len(rings) >= _RINGS:
                rings.clear()
            ring = rings[id(candidates)] = _Ring(candidates)
        return ring.owner(key)

    return select


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
