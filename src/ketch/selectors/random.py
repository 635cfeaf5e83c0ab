"""random: any instance, each as likely as the next."""

from __future__ import annotations

import random as chance
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..selector import Selector


def random() -> Selector:
    """Return a selector without memory."""
    return chance.choice
