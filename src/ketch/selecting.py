"""Selectors by the names that settings and policies use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import ConfigurationError
from .selectors.consistent_hash import consistent_hash
from .selectors.least_busy import least_busy
from .selectors.random import random
from .selectors.round_robin import round_robin

if TYPE_CHECKING:
    from .selector import SelectorMaker

SELECTORS: dict[str, SelectorMaker] = {
    "least_busy": least_busy,
    "round_robin": round_robin,
    "random": random,
    "consistent_hash": consistent_hash,
}


def find(chosen: str | SelectorMaker) -> SelectorMaker:
    """Return what makes the selector of a name; what isn't a name is returned as it is.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if not isinstance(chosen, str):
        return chosen
    if chosen not in SELECTORS:
        raise ConfigurationError(f"Selector {chosen} not found; there are: {', '.join(SELECTORS)}")
    return SELECTORS[chosen]
