"""Reader: what a directory of records holds; each record is read once, afterwards only its lock is tried."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from ..errors import RegistryError
from .directory import MAX_FILES, Directory, is_record
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

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._known: dict[str, Instance] = {}  # by file name; what a name holds never changes
        self._passed_over: set[str] = set()
        self._too_many = False
        self._gone_since: float | None = None

    def look(self) -> list[Instance]:
        """Return the instances whose owners live, one per id, and remove the files of the dead.

        Raises:
            RegistryError: the directory can't be read.
        """
        try:
            names = self._bounded(self._directory.names())
        except FileNotFoundError:
            names = []
            self._note_that_it_is_gone()
        self._passed_over.intersection_update(names)
        found = {name: instance for name in names if (instance := self._look_at(name)) is not None}
        if self._gone_since is not None:
            found = self._recovered(found)
        self._known = found
        # Names are in order, and so of two records with one id the newer comes last.
        return list({instance.id: instance for instance in found.values()}.values())

    def _look_at(self, name: str) -> Instance | None:
        if name in self._passed_over:
            return None
        known = self._known.get(name)
        try:
            if known is None:
                return self._read(name)
            return known if self._directory.alive(name) else None
        except (OSError, RegistryError) as error:
            if known is None:
                self._pass_over(name, error)
            return known  # not being able to look says nothing about its owner

    def _read(self, name: str) -> Instance | None:
        if not is_record(name):
            raise RegistryError("its name is not one of ketch's")
        data = self._directory.read(name)
        if data is None:
            return None
        if len(data) > MAX_RECORD:
            raise RegistryError(f"it is over {MAX_RECORD} bytes")
        return decode(data)

    def _pass_over(self, name: str, error: Exception) -> None:
        self._passed_over.add(name)
        log.warning("%s: passing over %r: %s", self._directory.path, name, error)

    def _bounded(self, names: list[str]) -> list[str]:
        too_many = len(names) > MAX_FILES
        if too_many and not self._too_many:
            log.warning("%s: more than %d files; the rest is passed over", self._directory.path, MAX_FILES)
        self._too_many = too_many
        return names[:MAX_FILES]

    def _note_that_it_is_gone(self) -> None:
        if self._gone_since is None:
            self._gone_since = time.monotonic()
            log.warning("%s was removed; going on with what was known", self._directory.path)

    def _recovered(self, found: dict[str, Instance]) -> dict[str, Instance]:
        if self._gone_since is not None and time.monotonic() - self._gone_since < GRACE:
            return {**self._known, **found}
        if found:
            self._gone_since = None
        return found
