"""Reader: what a directory of records holds; each record is read once, afterwards only its lock is tried."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from ..errors import RegistryError
from .folder import MAX_FILES, Folder, Stamp, is_record
from .record import MAX_RECORD, decode

if TYPE_CHECKING:
    from ..registry import Instance

log = logging.getLogger("ketch.registry")

#: Seconds that records are kept in mind after their directory was removed, while owners write them again.
GRACE = 2.0


class Reader:
    """The living instances of a directory.

    What isn't a sound record is passed over, with one line in the log.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        # By file name; None for a record that can't be understood. Names that aren't known may be other
        # people's, or can't be opened.
        self._known: dict[str, tuple[Stamp, Instance | None]] = {}
        self._passed_over: set[str] = set()
        self._too_many = False
        self._gone_since: float | None = None

    def look(self) -> list[Instance]:
        """Return the instances whose owners live, and remove the files of the dead.

        Raises:
            RegistryError: the directory can't be read.
        """
        try:
            names = self._bounded(self._folder.names())
        except FileNotFoundError:
            names = []
            self._note_that_it_is_gone()
        self._passed_over.intersection_update(names)
        found = {name: seen for name in names if (seen := self._look_at(name)) is not None}
        self._known = found if self._gone_since is None else self._recovered(found)
        return [instance for _, instance in self._known.values() if instance is not None]

    def _look_at(self, name: str) -> tuple[Stamp, Instance | None] | None:
        if not is_record(name):
            self._pass_over(name, "its name is not one of ketch's")
            return None
        known = self._known.get(name)
        try:
            read = self._folder.read(name, known and known[0])
        except OSError as error:
            if known is None:
                self._pass_over(name, error)
            return known  # not being able to look says nothing about its owner
        if read is None or (known and read[0] == known[0]):
            return read and known
        return read[0], self._decode(name, read[1])

    def _decode(self, name: str, data: bytes) -> Instance | None:
        if len(data) > MAX_RECORD:
            self._pass_over(name, f"it is over {MAX_RECORD} bytes")
            return None
        try:
            return decode(data)
        except RegistryError as error:
            self._pass_over(name, error)
            return None

    def _pass_over(self, name: str, reason: object) -> None:
        if name not in self._passed_over:
            self._passed_over.add(name)
            log.warning("%s: passing over %r: %s", self._folder.path, name, reason)

    def _bounded(self, names: list[str]) -> list[str]:
        too_many = len(names) > MAX_FILES
        if too_many and not self._too_many:
            log.warning("%s: more than %d files; the rest is passed over", self._folder.path, MAX_FILES)
        self._too_many = too_many
        return names[:MAX_FILES]

    def _note_that_it_is_gone(self) -> None:
        if self._gone_since is None:
            self._gone_since = time.monotonic()
            log.warning("%s was removed; going on with what was known", self._folder.path)

    def _recovered(self, found: dict[str, tuple[Stamp, Instance | None]]) -> dict[str, tuple[Stamp, Instance | None]]:
        if self._gone_since is not None and time.monotonic() - self._gone_since < GRACE:
            return {**self._known, **found}
        if found:
            self._gone_since = None
        return found
