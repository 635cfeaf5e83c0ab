"""Shelf: where the instances of one name are filed.

    {ketch:all}:records                 every instance
    {ketch:service:<service>}:records   those of a service
    {ketch:contract:<contract>}:records those that serve a contract

Each is a hash from an instance's id to its record. Beside it are `…:expires`, a sorted set of ids by the server's
milliseconds at which they run out, and `…:version`, which counts the changes. Changes are told on the channel that is
called as the braces have it. Names are percent-encoded; the braces keep a shelf's keys on one server of a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from ...errors import RegistryError

if TYPE_CHECKING:
    from ...registry import Instance


@dataclass(frozen=True, slots=True)
class Shelf:
    """One of them, by its channel."""

    channel: str

    @property
    def keys(self) -> tuple[str, str, str]:
        """The keys of its records, their expiries and its version, as the scripts take them."""
        tag = f"{{{self.channel}}}"
        return f"{tag}:records", f"{tag}:expires", f"{tag}:version"


def shelves_of(prefix: str, instance: Instance) -> list[Shelf]:
    """Return the shelves that an instance belongs on.

    Raises:
        RegistryError: one of its names is no text.
    """
    contracts = [_named(prefix, "contract", contract) for contract in dict.fromkeys(instance.contracts)]
    return [Shelf(f"{prefix}:all"), _named(prefix, "service", instance.service), *contracts]


def shelves_for(prefix: str, name: str | None) -> list[Shelf]:
    """Return the shelves on which all are that answer to a name.

    Raises:
        RegistryError: it is no text.
    """
    if name is None:
        return [Shelf(f"{prefix}:all")]
    return [_named(prefix, "service", name), _named(prefix, "contract", name)]


def _named(prefix: str, kind: str, name: str) -> Shelf:
    try:
        return Shelf(f"{prefix}:{kind}:{quote(name, safe='')}")
    except UnicodeEncodeError as error:
        raise RegistryError(f"{name!r} is no text") from error
