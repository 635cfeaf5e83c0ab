"""Complaints: what others have put among our records, logged once each and passed over."""

from __future__ import annotations

import logging

log = logging.getLogger("ketch.registry")

#: Complaints that are remembered; further ones go to the debug log.
_MOST = 1000


class Complaints:
    """What was complained of at one backend.

    Args:
        place: the backend, for people; never a secret.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._known: set[object] = set()

    def make(self, what: bytes | str, why: object) -> None:
        """Log that something is passed over, unless that was said before."""
        new = what not in self._known and len(self._known) < _MOST
        if new:
            self._known.add(what)
        log.log(
            logging.WARNING if new else logging.DEBUG,
            "registry at %s: %.200r is passed over: %.300s",
            self._place,
            what,
            why,
        )
