"""random: any instance, each as likely as the next."""

from __future__ import annotations

import random as chance
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..selector import Candidate, Selector


def random() -> Selector:
    """Return a selector without memory."""

    def select(candidates: Sequence[Candidate], key: str) -> Candidate:  # noqa: ARG001 - a selector's signature
        return chance.choice(candidates)  # noqa: S311 - spreading load is no secret

    return select
