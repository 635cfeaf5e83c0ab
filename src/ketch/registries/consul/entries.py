"""An instance as a Consul service, and back.

The service's name and id are the instance's, where Consul and its HTTP API can take them as they are; else what can be
read of them, and a hash. Tags are `ketch` and the contracts. The record (see `record`) is in the metadata, in pieces
`ketch-0`, `ketch-1` … (64 pairs of 512 bytes are Consul's limit). A service of a stranger has no record: it is
an instance of its name, whose labels are its metadata and whose contracts are its tags.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ...errors import RegistryError
from ...registry import Instance
from ..record import decode, encode
from . import gomicro

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("ketch.registry")

#: The tag of every service of ours.
TAG = "ketch"
#: Instances that are read of one service, at most.
MAX_INSTANCES = 10_000

_PIECE = 512  # bytes, of a value of the metadata
_PIECES = 60
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,199}")
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")  # to Consul A and a are the same id
_REAP_AFTER = 60  # seconds; Consul's least


class _Node(msgspec.Struct):
    address: str = msgspec.field(name="Address", default="")


class _Service(msgspec.Struct):
    id: str = msgspec.field(name="ID", default="")
    name: str = msgspec.field(name="Service", default="")
    address: str = msgspec.field(name="Address", default="")
    port: int = msgspec.field(name="Port", default=0)
    socket: str = msgspec.field(name="SocketPath", default="")
    tags: list[str] | None = msgspec.field(name="Tags", default=None)
    meta: dict[str, str] | None = msgspec.field(name="Meta", default=None)


class _Entry(msgspec.Struct):
    node: _Node = msgspec.field(name="Node")
    service: _Service = msgspec.field(name="Service")


class Catalog(NamedTuple):
    """Consul's names of all services, and of those that have a tag."""

    names: frozenset[str]
    tagged: Mapping[str, frozenset[str]]


_entries = msgspec.json.Decoder(list[_Entry])
_catalog = msgspec.json.Decoder(dict[str, list[str]])


class Entries:
    """Reads and writes services.

    Args:
        prefix: what their names and ids begin with.
        go_micro: write, and list, them in go-micro's form; both forms are read.
    """

    def __init__(self, prefix: str, *, go_micro: bool = False) -> None:
        self._prefix = prefix
        self._go_micro = go_micro
        self._passed_over: set[str] = set()

    def name(self, service: str) -> str:
        """Return what Consul calls a service."""
        return self._prefix + (service if _NAME.fullmatch(service) else _hashed(service))

    def id(self, instance: Instance) -> str:
        """Return what Consul calls an instance."""
        if self._go_micro:
            return instance.id
        return self._prefix + (instance.id if _ID.fullmatch(instance.id) else _hashed(instance.id).lower())

    def check(self, instance: Instance) -> str:
        """Return what Consul calls an instance's check."""
        return f"service:{self.id(instance)}"

    def write(self, instance: Instance, ttl: float) -> dict[str, Any]:
        """Return an instance as the API's registration of a service.

        Raises:
            RegistryError: it can't be kept.
        """
        tags, meta = gomicro.describe(instance) if self._go_micro else _describe(instance)
        return {
            "ID": self.id(instance),
            "Name": self.name(instance.service),
            "Tags": tags,
            **_place(instance.address),
            "Meta": meta,
            "Check": {
                "CheckID": self.check(instance),
                "Name": "ketch heartbeat",
                "TTL": f"{int(ttl * 1000)}ms",
                "Status": "passing",
                "DeregisterCriticalServiceAfter": f"{int(max(_REAP_AFTER, 2 * ttl))}s",
            },
        }

    def read_catalog(self, body: bytes) -> Catalog:
        """Return what `/v1/catalog/services` has; services whose names no path can hold are passed over.

        Raises:
            RegistryError: it is no such answer.
        """
        try:
            services = _catalog.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RegistryError(f"consul: its list of services can't be read: {error}") from error
        names, tagged = set(), defaultdict[str, set[str]](set)
        for service, tags in services.items():
            if not service.startswith(self._prefix):
                continue
            if _SAFE.fullmatch(service) is None:
                self._pass_over(service, f"a service that is called {service[:100]!r}")
                continue
            names.add(service)
            for tag in tags:
                tagged[tag.removeprefix(gomicro.CONTRACT)].add(service)
            if self._go_micro and gomicro.is_one(tags):
                tagged[TAG].add(service)
        return Catalog(frozenset(names), {tag: frozenset(those) for tag, those in tagged.items()})

    def read_service(self, body: bytes) -> tuple[Instance, ...]:
        """Return the instances of `/v1/health/service/…`; what can't be read is passed over.

        Raises:
            RegistryError: it is no such answer.
        """
        try:
            entries = _entries.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RegistryError(f"consul: its list of instances can't be read: {error}") from error
        if len(entries) > MAX_INSTANCES:
            self._pass_over("crowd", f"all but {MAX_INSTANCES} instances of {entries[0].service.name!r}")
        return tuple(one for entry in entries[:MAX_INSTANCES] if (one := self._read(entry)) is not None)

    def _read(self, entry: _Entry) -> Instance | None:
        service = entry.service
        meta = service.meta or {}
        try:
            if f"{TAG}-0" in meta:
                pieces = (meta.get(f"{TAG}-{number}", "") for number in range(_PIECES))
                return decode("".join(pieces).encode())
            address = _address(entry)
            if gomicro.is_one(service.tags or ()):
                return gomicro.instance(service, address)
        except (RegistryError, UnicodeEncodeError) as error:
            self._pass_over(service.id, f"service {service.id!r}: {error}")
            return None
        name = service.name.removeprefix(self._prefix)
        version = meta.get("version", "latest")
        return Instance(name, service.id, address, version, tuple(service.tags or ()), metadata=meta)

    def _pass_over(self, key: str, what: str) -> None:
        if key not in self._passed_over and len(self._passed_over) < MAX_INSTANCES:
            self._passed_over.add(key)
            log.warning("consul: passing over %s", what)


def _hashed(text: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", text[:40]).strip("-.")
    return f"{readable or 'x'}~{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:20]}"


def _describe(instance: Instance) -> tuple[list[str], dict[str, str]]:
    """Return an instance's tags and metadata."""
    pieces = _split(encode(instance).decode())
    if len(pieces) > _PIECES:
        raise RegistryError(
            f"instance {instance.id!r}: its record is over {_PIECES * _PIECE} bytes, more than Consul's metadata "
            "holds; shorten its metadata or contracts"
        )
    tags = [TAG, *dict.fromkeys(instance.contracts)]
    return tags, {f"{TAG}-{number}": piece for number, piece in enumerate(pieces)}


def _split(text: str) -> list[str]:
    """Cut a text into pieces of at most `_PIECE` bytes, between characters."""
    pieces, data = [], text.encode()
    while data:
        piece = data[:_PIECE].decode(errors="ignore")  # a character that is cut goes into the next one
        pieces.append(piece)
        data = data[len(piece.encode()) :]
    return pieces


def _place(address: str) -> dict[str, Any]:
    if address.startswith("unix:"):
        return {"SocketPath": address.removeprefix("unix:")}
    host, _, port = address.rpartition(":")
    if port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536:  # noqa: PLR2004 - a port
        return {"Address": host.strip("[]"), "Port": int(port)}
    return {"Address": address}


def _address(entry: _Entry) -> str:
    service = entry.service
    host = service.address or entry.node.address
    if service.socket:
        return f"unix:{service.socket}"
    if not (host and service.port):
        raise RegistryError("it has no address and port")
    return f"[{host}]:{service.port}" if ":" in host else f"{host}:{service.port}"
