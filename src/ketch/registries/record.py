"""An instance as JSON, as registries that store bytes keep it.

    {"service": "go.micro.srv.user", "id": "…", "address": "127.0.0.1:5001",
     "version": "latest", "contracts": ["shippy.user.v1.UserService"], "metadata": {"transport": "grpc"}}

`id`, `version`, `contracts` and `metadata` may be left out; names that aren't known are passed over.
"""

from __future__ import annotations

import msgspec

from ..errors import RegistryError
from ..registry import Instance

#: The largest record that is written or read, in bytes.
MAX_RECORD = 64 * 1024


class _Record(msgspec.Struct):
    service: str
    address: str
    id: str = ""
    version: str = "latest"
    contracts: tuple[str, ...] = ()
    metadata: dict[str, str] = {}  # msgspec copies a default that is empty


_encoder = msgspec.json.Encoder()
_one = msgspec.json.Decoder(_Record)
_many = msgspec.json.Decoder(list[_Record])


def encode(instance: Instance) -> bytes:
    """Return an instance's record.

    Raises:
        RegistryError: it has no service, id or address, or what JSON can't carry, or is too large.
    """
    if not (instance.service and instance.id and instance.address):
        raise RegistryError(f"an instance needs a service, an id and an address to be registered: {instance!r}")
    try:
        data = _encoder.encode(
            _Record(
                instance.service,
                instance.address,
                instance.id,
                instance.version,
                instance.contracts,
                dict(instance.metadata),
            )
        )
        _one.decode(data)  # what a type checker would have refused is refused here, not by every reader
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise RegistryError(f"instance {instance.id!r} can't be registered: {error}") from error
    if len(data) > MAX_RECORD:
        raise RegistryError(
            f"instance {instance.id!r}: its record has {len(data)} bytes, more than {MAX_RECORD}; "
            "shorten its metadata or contracts"
        )
    return data


def decode(data: bytes) -> Instance:
    """Return the instance that a record describes.

    Raises:
        RegistryError: it is no such record.
    """
    try:
        instance = _instance(_one.decode(data))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RegistryError(f"no record of an instance: {error}") from error
    return instance


def decode_list(data: bytes) -> list[Instance]:
    """Return the instances of a JSON list of records.

    Raises:
        RegistryError: it is no such list.
    """
    try:
        return [_instance(record) for record in _many.decode(data)]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RegistryError(f"no list of instances: {error}") from error


def _instance(record: _Record) -> Instance:
    if not record.service or not record.address:
        raise RegistryError("no record of an instance: it has no service or no address")
    return Instance(
        service=record.service,
        id=record.id or f"{record.service}@{record.address}",
        address=record.address,
        version=record.version,
        contracts=record.contracts,
        metadata=record.metadata,
    )
