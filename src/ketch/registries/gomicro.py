"""go-micro's record of a service, as its registries for etcd and NATS carry it (registry/registry.go of go-micro v5).

    {"name": "greeter", "version": "latest", "metadata": {}, "endpoints": [{"name": "Greeter.Hello", …}],
     "nodes": [{"id": "greeter-1", "address": "127.0.0.1:5001", "metadata": {"protocol": "grpc", …}}]}

Nodes of one version of a service share a record; we write one for each instance, as go-micro's etcd registry does. Our
contracts, which it has no word for, travel as the node's metadata `ketch-contracts`, separated by blanks.
"""

from __future__ import annotations

import msgspec

from ..errors import RegistryError
from ..registry import Instance
from .record import MAX_RECORD

#: The label that carries an instance's contracts.
CONTRACTS = "ketch-contracts"

#: The largest record that is read, in bytes, and the most nodes and endpoints in it: one may describe a whole version.
MAX_READ = 4 * 1024 * 1024
MAX_NODES = 10_000
_MAX_ENDPOINTS = 10_000

#: What its clients go by: without `protocol` they fall back to an RPC of 2017.
_SPEAKS = {"protocol": "grpc", "server": "grpc", "transport": "grpc"}


class Value(msgspec.Struct):
    """The shape of a request or reply; it may be left as empty as this."""

    name: str = ""
    type: str = ""
    values: list[Value] | None = None


class Endpoint(msgspec.Struct):
    """A method, `Greeter.Hello`, or a subscriber, whose metadata has its `topic`."""

    name: str = ""
    request: Value | None = None
    response: Value | None = None
    metadata: dict[str, str] | None = None


class Node(msgspec.Struct):
    """One instance."""

    id: str = ""
    address: str = ""
    metadata: dict[str, str] | None = None


class Service(msgspec.Struct):
    """One version of a service."""

    name: str = ""
    version: str = ""
    metadata: dict[str, str] | None = None
    endpoints: list[Endpoint] | None = None
    nodes: list[Node] | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Service)


def service(instance: Instance, registry: str) -> Service:
    """Return the record of one instance.

    Args:
        instance: as it is registered.
        registry: the name of go-micro's registry that it is written to, for the node's metadata.

    Raises:
        RegistryError: it has no service, id or address.
    """
    if not (instance.service and instance.id and instance.address):
        raise RegistryError(f"an instance needs a service, an id and an address to be registered: {instance!r}")
    metadata = {**_SPEAKS, "registry": registry, **instance.metadata}
    if instance.contracts:
        metadata[CONTRACTS] = " ".join(instance.contracts)
    node = Node(instance.id, instance.address, metadata)
    return Service(instance.service, instance.version, {}, [], [node])


def instances(record: Service) -> list[Instance]:
    """Return the instances of a record; a node without an id or an address is passed over.

    Raises:
        RegistryError: it has no name, or more in it than can be meant.
    """
    if not record.name:
        raise RegistryError("no record of go-micro's: it has no name")
    if len(record.nodes or ()) > MAX_NODES or len(record.endpoints or ()) > _MAX_ENDPOINTS:
        raise RegistryError(f"{record.name}: a record with more than {MAX_NODES} nodes or {_MAX_ENDPOINTS} endpoints")
    return [
        _instance(record, node, dict(node.metadata or {})) for node in record.nodes or () if node.id and node.address
    ]


def _instance(record: Service, node: Node, metadata: dict[str, str]) -> Instance:
    contracts = tuple(metadata.pop(CONTRACTS, "").split())
    return Instance(record.name, node.id, node.address, record.version or "latest", contracts, metadata)


def encode(record: Service) -> bytes:
    """Return a record as JSON.

    Raises:
        RegistryError: it is too large, or has what JSON can't carry.
    """
    try:
        data = _encoder.encode(record)
        _decoder.decode(data)  # what a type checker would have refused is refused here, not by every reader
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise RegistryError(f"{record.name!r} can't be registered: {error}") from error
    if len(data) > MAX_RECORD:
        raise RegistryError(
            f"{record.name!r}: its record has {len(data)} bytes, more than {MAX_RECORD}; "
            "shorten its metadata or contracts"
        )
    return data


def decode(data: bytes) -> Service:
    """Return a record that is JSON; Go reads names whatever their case, we as Go writes them.

    Raises:
        RegistryError: it is none, or too large.
    """
    if len(data) > MAX_READ:
        raise RegistryError(f"a record of {len(data)} bytes, more than {MAX_READ}")
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryError(f"no record of go-micro's: {error}") from error
