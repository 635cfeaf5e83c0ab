"""Say: lines of the supervisor's own, beside what the workers log."""

from __future__ import annotations

import contextlib
import sys


def say(text: str) -> None:
    """Print a line of the supervisor's own."""
    with contextlib.suppress(OSError):  # whoever read it has gone, which is no reason to leave the workers alone
        print(f"ketch run: {text}", file=sys.stderr, flush=True)  # noqa: T201 - a program that supervises, without logging
