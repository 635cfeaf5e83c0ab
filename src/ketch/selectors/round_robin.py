"""Round robin: one instance after the other."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..registry import Instance
    from ..selector import Selector


def round_robin() -> Selector:
    """Return a selector that takes the instances in turn.

    It starts anywhere, or the first instance would get the first call of every client there is.
    """
    turn = secrets.randbelow(1 << 16)

    def select(instances: Sequence[Instance]) -> Instance:
        nonlocal turn
        turn += 1
        return instances[turn % len(instances)]

    return select
