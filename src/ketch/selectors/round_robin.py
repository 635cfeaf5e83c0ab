"""round_robin: each instance in turn, beginning anywhere."""

from __future__ import annotations

import random as chance
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..selector import Candidate, Selector


def round_robin() -> Selector:
    """Return a selector that takes turns. Clients that start together begin at different instances."""
    turns = count(chance.randrange(1 << 16))  # noqa: S311 - spreading load is no secret

    def select(candidates: Sequence[Candidate], key: str) -> Candidate:  # noqa: ARG001 - a selector's signature
        return candidates[next(turns) % len(candidates)]

    return select
