"""Cancellation: told apart from an `asyncio.CancelledError` that a handler's or a plugin's own doings let out."""

from __future__ import annotations

import asyncio


def cancelled() -> bool:
    """Tell whether this task is being cancelled, and not just something that it waited for.

    What must not end in silence catches `CancelledError` beside `Exception`, and raises it only then.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
