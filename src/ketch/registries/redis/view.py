"""View: what is known of one shelf."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import RegistryError
from .. import record

if TYPE_CHECKING:
    from ...registry import Instance
    from ..complaints import Complaints
    from .shelf import Shelf

#: Instances that are followed on one shelf.
_MOST = 100_000


class View:
    """One shelf's instances, as of a version.

    Attributes:
        version: of the latest change, 0 for a shelf that is empty.
        due: when the server has to be asked what has run out, on the event loop's clock.
    """

    def __init__(self, shelf: Shelf, name: str | None, complaints: Complaints) -> None:
        self.shelf = shelf
        self.version = 0
        self.due = 0.0
        self.instances: dict[bytes, Instance] = {}
        self._name = name
        self._complaints = complaints

    def put(self, key: bytes, data: bytes) -> None:
        """Take a record in that was read, or complain about it."""
        instance = self._read(key, data)
        if instance is not None and instance.id.encode() != key:
            self._complaints.make(key, f"it is the record of {instance.id!r}")
        elif instance is not None:
            self.instances[key] = instance

    def apply(self, change: bytes, now: float) -> bool:
        """Take a change in, as scripts.py has them; tell whether there was anything new in it.

        Raises:
            RegistryError: one before it was missed.
        """
        try:
            counted, sign, what = change.split(b" ", 2)
            milliseconds, data = what.split(b" ", 1) if sign == b"+" else (b"0", what)
            version, seconds = int(counted), int(milliseconds) / 1000
        except ValueError as error:
            self._complaints.make(change[:200], error)
            return False
        if version <= self.version:
            return False  # it was read already
        if self.version not in (0, version - 1):
            raise self._missed()
        self.version = version
        if sign == b"+":
            self.due = min(self.due, now + seconds)
            instance = self._read(change[:200], data)
            if instance is not None:
                self.instances[instance.id.encode()] = instance
        else:
            self.instances.pop(data, None)
        return True

    def check(self, version: int) -> None:
        """Compare with the server's version, once all that was told by then is taken in.

        Raises:
            RegistryError: something was missed, or the server has lost what it knew.
        """
        if version > self.version or (self.instances and not version):
            raise self._missed()
        if not version:
            self.version = 0  # the shelf's keys are gone, and the next ones begin to count elsewhere

    def _missed(self) -> RegistryError:
        return RegistryError(f"changes of {self.shelf.channel} were missed, or the server has forgotten them")

    def _read(self, what: bytes, data: bytes) -> Instance | None:
        try:
            instance = record.decode(data)
        except RegistryError as error:
            self._complaints.make(what, error)
            return None
        known = instance.id.encode() in self.instances
        if len(data) > record.MAX_RECORD or (len(self.instances) >= _MOST and not known):
            self._complaints.make(what, f"it is too large, or there are more than {_MOST}")
            return None
        if self._name is not None and not instance.answers_to(self._name):
            self._complaints.make(what, f"it is a record of {instance.service}")
            return None
        return instance
