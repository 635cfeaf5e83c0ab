"""Random: any instance, each as likely as the others."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..selector import Selector


def random() -> Selector:
    """Return a selector that takes any instance."""
    return Random().choice  # noqa: S311 - spreads load, keeps no secret
