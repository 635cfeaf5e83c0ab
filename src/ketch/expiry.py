"""Expiry: until when an event is of use; CloudEvents' extension `expirytime`.

It is how a deadline passes into events: what a handler publishes for the sake of a call is of no use when nobody waits
for that call any more. Publisher and subscriber are different machines, so it holds as exactly as their clocks agree.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .message import Message

#: Until when an event is of use, RFC 3339.
EXPIRES: Final = "ce-expirytime"

#: Lifetimes are at most so long, in seconds: a hundred years, which any clock can tell.
_LONGEST: Final = 100 * 365 * 86_400.0


def expires_in(seconds: float) -> str:
    """Return the time so many seconds from now, as the header has it."""
    when = datetime.fromtimestamp(time.time() + min(seconds, _LONGEST), UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_left(message: Message) -> float | None:
    """Return the seconds that an event is yet of use, 0 or less when it is no more; None where that isn't said."""
    said = message.headers.get(EXPIRES)
    if not said:
        return None
    try:
        when = datetime.fromisoformat(said)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - time.time()
    except (ValueError, OverflowError, OSError):
        return None  # a foreign publisher's mistake is no reason to lose its event
