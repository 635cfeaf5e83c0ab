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
from .. import gomicro, record
from .config import GO_MICRO

if TYPE_CHECKING:
    from ...registry import Instance
    from .config import Config


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
    def decode(self, key: bytes, value: bytes) -> list[Instance]:
        """Return the instances that are filed under a key; as a rule it is one.

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

    def decode(self, key: bytes, value: bytes) -> list[Instance]:
        """Read such a record."""
        if len(value) > record.MAX_RECORD:
            raise RegistryError(f"it has {len(value)} bytes, more than {record.MAX_RECORD}")
        instance = record.decode(value)
        if key not in self.keys(instance):
            raise RegistryError(f"it is a record of {instance.service}, {instance.id}")
        return [instance]


class GoMicroLayout(Layout):
    """go-micro's: `/micro/registry/<service>/<id>`, slashes in names written as `-` (its registry/etcd/etcd.go).

    It has no place for contracts, so whoever watches a name, which may be one, has to watch everything.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = f"{prefix}/"

    def keys(self, instance: Instance) -> list[bytes]:
        """Return the one key."""
        return [self._folder(instance.service) + _text(_flat(instance.id))]

    def prefixes(self, name: str | None) -> list[bytes]:  # noqa: ARG002 - see above
        """Return where all are."""
        return [self._prefix.encode()]

    def encode(self, instance: Instance) -> bytes:
        """Return go-micro's record of a service with one node."""
        return gomicro.encode(gomicro.service(instance, "etcd"))

    def decode(self, key: bytes, value: bytes) -> list[Instance]:
        """Read such a record."""
        found = gomicro.decode(value)
        if not key.startswith(self._folder(found.name)):
            raise RegistryError(f"it is a record of {found.name}")
        return gomicro.instances(found)

    def _folder(self, service: str) -> bytes:
        return _text(f"{self._prefix}{_flat(service)}/")


def layout(config: Config) -> Layout:
    """Return the layout that a URL asks for."""
    return GoMicroLayout(config.prefix) if config.format == GO_MICRO else KetchLayout(config.prefix)


def _flat(name: str) -> str:
    return name.replace("/", "-")


def _text(key: str) -> bytes:
    try:
        return key.encode()
    except UnicodeEncodeError as error:
        raise RegistryError(f"{key!r} is no text") from error


def _quote(name: str) -> str:
    try:
        return quote(name, safe="")
    except UnicodeEncodeError as error:
        raise RegistryError(f"{name!r} is no text") from error


def after(prefix: bytes) -> bytes:
    """Return the end of the range of all keys with a prefix, which doesn't end in 0xff."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
