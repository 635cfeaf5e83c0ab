"""Layout: which keys an instance has, and what is in them.

    /ketch/services/<service>/<id>      the record, once for each instance
    /ketch/contracts/<contract>/<id>    the same record, once for each contract that it serves

Names and ids are percent-encoded, so a slash in one is none in a key.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING
from urllib.parse import quote

from ...errors import RegistryError
from .. import record

if TYPE_CHECKING:
    from ...registry import Instance


class Layout(ABC):
    """Where instances are filed, and how they are written."""

    @abstractmethod
    def keys(self, instance: Instance) -> list[bytes]:
        """Return the keys that hold the instance's record."""

    @abstractmethod
    def prefixes(self, name: str | None) -> list[bytes]:
        """Return what the keys of all instances begin with that answer to a name; others may be among them."""

    @abstractmethod
    def encode(self, instance: Instance) -> bytes:
        """Return an instance's record.

        Raises:
            RegistryError: it can't be written.
        """

    @abstractmethod
    def decode(self, key: bytes, value: bytes) -> Instance:
        """Return the instance that is filed under a key.

        Raises:
            RegistryError: the value is no record, or one that belongs elsewhere.
        """


class KetchLayout(Layout):
    """A tree of services, and one of contracts."""

    def __init__(self, prefix: str) -> None:
        self._services = f"{prefix}/services/"
        self._contracts = f"{prefix}/contracts/"

    def keys(self, instance: Instance) -> list[bytes]:
        """Return a key for the service, and one for each contract."""
        end = f"/{_quote(instance.id)}"
        keys = [f"{self._services}{_quote(instance.service)}{end}"]
        keys += [f"{self._contracts}{_quote(contract)}{end}" for contract in dict.fromkeys(instance.contracts)]
        return [key.encode() for key in keys]

    def prefixes(self, name: str | None) -> list[bytes]:
        """Return where a service and a contract of that name have their instances."""
        if name is None:
            return [self._services.encode()]
        return [f"{tree}{_quote(name)}/".encode() for tree in (self._services, self._contracts)]

    def encode(self, instance: Instance) -> bytes:
        """Return the record as every registry of ours writes it."""
        return record.encode(instance)

    def decode(self, key: bytes, value: bytes) -> Instance:
        """Read such a record."""
        if len(value) > record.MAX_RECORD:
            raise RegistryError(f"it has {len(value)} bytes, more than {record.MAX_RECORD}")
        instance = record.decode(value)
        if key not in self.keys(instance):
            raise RegistryError(f"it is a record of {instance.service}, {instance.id}")
        return instance


def _quote(name: str) -> str:
    try:
        return quote(name, safe="")
    except UnicodeEncodeError as error:
        raise RegistryError(f"{name!r} is no text") from error


def after(prefix: bytes) -> bytes:
    """Return the end of the range of all keys with a prefix, which doesn't end in 0xff."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
