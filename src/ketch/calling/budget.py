"""Budget: how many calls may be made twice, so that a service in trouble isn't buried under its callers' retries."""

from __future__ import annotations

from typing import Final

#: Retries and hedges that are free: a client that makes few calls has some, too.
_FLOOR: Final = 10.0


class Budget:
    """Second calls as a share of the first ones of the last while.

    The share isn't kept second by second: what wasn't used is saved up, to ten calls and what a hundred calls earn.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._most = _FLOOR + 100 * share
        self._tokens = _FLOOR if share else 0.0
        self._seen = 0

    def take(self, calls: int) -> bool:
        """Take one, if there is one left.

        Args:
            calls: made so far, each counted once.
        """
        self._tokens = min(self._most, self._tokens + self._share * (calls - self._seen))
        self._seen = calls
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
