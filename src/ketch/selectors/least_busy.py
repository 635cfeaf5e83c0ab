"""least_busy: of two instances taken at random, the one with less in hand.

The "power of two choices" (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 1996): nearly as even
as asking all of them, and clients that look at the same time don't all run to the same one. An instance that has become
slow, or hangs, gets less by itself, since the calls that it has in hand stay there.
"""

from __future__ import annotations

from random import random as chance
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..selector import Candidate, Selector


def least_busy() -> Selector:
    """Return a selector that compares two."""

    def select(candidates: Sequence[Candidate], key: str) -> Candidate:  # noqa: ARG001 - a selector's signature
        size = len(candidates)
        if size == 1:
            return candidates[0]
        first, second = divmod(int(chance() * size * (size - 1)), size - 1)  # noqa: S311 - spreading load is no secret
        one, other = candidates[first], candidates[second + 1 if second >= first else second]
        return other if other.in_flight < one.in_flight else one

    return select
