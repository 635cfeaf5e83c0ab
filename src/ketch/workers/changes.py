"""Changes: which .py file was written, made or removed since the last look. Polling, so it works everywhere."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

#: Folders that hold nothing of the user's.
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})

#: Seconds between two looks at the disk.
_PAUSE = 0.5

#: Most files watched.
_MAX_FILES = 20_000


class Changes:
    """The .py files below some folders, by time of their last change."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._known = dict(self._files())
        self._last = time.monotonic()

    def look(self) -> str:
        """Return a file that has changed since the last look, "" for none."""
        now = time.monotonic()
        if now - self._last < _PAUSE:
            return ""
        self._last = now
        files = dict(self._files())
        changed = sorted(name for name, _ in files.items() ^ self._known.items())
        self._known = files
        return os.path.relpath(changed[0]) if changed else ""

    def _files(self) -> Iterator[tuple[str, int]]:
        count = 0
        for folder in self._folders:
            for place, folders, names in os.walk(folder):
                folders[:] = [name for name in folders if name not in _SKIPPED and not name.startswith(".")]
                for name in names:
                    if name.endswith(".py") and count < _MAX_FILES:
                        count += 1
                        path = os.path.join(place, name)  # noqa: PTH118 - thousands of them, twice a second
                        try:
                            yield path, os.stat(path).st_mtime_ns  # noqa: PTH116 - as above
                        except OSError:
                            continue  # gone since it was listed; that is a change
