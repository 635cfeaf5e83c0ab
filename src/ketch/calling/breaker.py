"""Breaker: calls that would fail for want of an answer fail at once, while single ones try whether it is well again."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Final

from ..errors import Unreachable

log = logging.getLogger("ketch.client")

#: Seconds that calls are counted together, and the fewest that failed which say anything.
_WINDOW: Final = 10.0
_LEAST: Final = 20

#: Seconds between two tries while it is open: doubled up to the second.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0


class Breaker:
    """A circuit breaker around one method of one service.

    Attributes:
        open: calls fail at once.
    """

    def __init__(self, name: str, share: float) -> None:
        self.open = False
        self._name = name
        self._share = share
        self._began = 0.0
        self._calls = 0
        self._failures = 0
        self._pause = _FIRST_PAUSE
        self._due = 0.0

    def check(self) -> None:
        """Let a call through while it is open, if one is due.

        Raises:
            Unreachable: none is.
        """
        now = monotonic()
        if now < self._due:
            raise Unreachable(
                f"{self._name}: too many calls had no answer, so none is made; the next in {self._due - now:.1f} s"
            )
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        self._due = now + self._pause

    def failed(self, calls: int) -> None:
        """Take in that a call had no answer.

        Args:
            calls: made so far, this one included.
        """
        if self.open or not self._share:
            return
        now = monotonic()
        if now - self._began > _WINDOW:
            self._began, self._calls, self._failures = now, calls - 1, 0
        self._failures += 1
        if self._failures >= _LEAST and self._failures >= self._share * (calls - self._calls):
            self.open = True
            self._pause = _FIRST_PAUSE
            self._due = now + self._pause
            log.warning(
                "%s: %d of the last %d calls had no answer; further ones fail at once, but for one now and then",
                self._name,
                self._failures,
                calls - self._calls,
            )

    def answered(self) -> None:
        """Take in that a call was answered while it was open."""
        self.open = False
        self._began = 0.0
        log.info("%s: calls are answered again", self._name)
