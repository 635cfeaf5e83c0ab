"""go-micro's form of a Consul service (registry/consul of go-micro v5): what it has to say is in tags.

    t-…   a pair of the node's metadata, as a JSON object of one pair
    e-…   an endpoint, as JSON
    v-…   the version

each as the hexadecimal digits of its zlib stream; before 2017 it was plain text behind `t=`, `e=` and `v=`, which is
read too. A service without a version is none to us. Name, id and address are Consul's own.

We add tags `ketch:…` with our contracts. They begin so, since go-micro stumbles over others that begin with t, e or v:
their second character is a version of the encoding to it, and what is in another one it passes over.
"""

from __future__ import annotations

import binascii
import json
import re
import zlib
from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import RegistryError
from .. import gomicro

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...registry import Instance

#: What the tag begins with that each of its services has.
VERSION = ("v-", "v=")

#: What the tag of a contract begins with.
CONTRACT = "ketch:"

_MAX_TAG = 64 * 1024  # bytes of what a tag says
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_META_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_MAX_VALUE = 512
_MAX_META = 64

_pair = msgspec.json.Decoder(dict[str, str])


def is_one(tags: Iterable[str]) -> bool:
    """Tell whether tags are those of a service of go-micro's."""
    return any(tag.startswith(VERSION) for tag in tags)


def describe(instance: Instance) -> tuple[list[str], dict[str, str]]:
    """Return an instance's tags, and of its metadata what Consul's can hold, where people look.

    Raises:
        RegistryError: it can't be kept in this form.
    """
    record = gomicro.service(instance, "consul")
    gomicro.encode(record)  # for its checks
    for what, text in (("service", instance.service), ("id", instance.id)):
        if _NAME.fullmatch(text) is None:
            raise RegistryError(
                f"instance {instance.id!r}: as go-micro has it at Consul, its {what} is made of letters, digits, "
                f"'.', '-' and '_', not {text!r}"
            )
    metadata = (record.nodes or [gomicro.Node()])[0].metadata or {}
    pairs = [_write("t-", json.dumps({key: value}, ensure_ascii=False)) for key, value in sorted(metadata.items())]
    held = {
        key: value
        for key, value in sorted(metadata.items())
        if _META_KEY.fullmatch(key) and len(value.encode()) <= _MAX_VALUE
    }
    contracts = [CONTRACT + contract for contract in dict.fromkeys(instance.contracts)]
    return [*pairs, _write("v-", instance.version), *contracts], dict(list(held.items())[:_MAX_META])


def instance(service: Any, address: str) -> Instance:
    """Return the instance that a service of `/v1/health/service/…` is.

    Raises:
        RegistryError: its tags can't be read.
    """
    version, metadata = "", dict[str, str]()
    for tag in service.tags or ():
        if tag.startswith(VERSION):
            version = _read(tag)
        elif tag.startswith(("t-", "t=")):
            try:
                metadata |= _pair.decode(_read(tag))
            except msgspec.MsgspecError as error:
                raise RegistryError(f"no pair of metadata is in a tag: {error}") from error
    node = gomicro.Node(service.id, address, metadata or dict(service.meta or {}))
    record = gomicro.Service(service.name, version, {}, [], [node])
    return gomicro.instances(record)[0]


def _write(kind: str, text: str) -> str:
    return kind + zlib.compress(text.encode()).hex()


def _read(tag: str) -> str:
    if tag[1] == "=":
        return tag[2:]
    try:
        inflating = zlib.decompressobj()
        data = inflating.decompress(binascii.unhexlify(tag[2:]), _MAX_TAG)
        if not inflating.eof:
            raise RegistryError(f"a tag is cut, or holds over {_MAX_TAG} bytes")
        return data.decode()
    except (binascii.Error, zlib.error, ValueError) as error:
        raise RegistryError(f"a tag of go-micro's can't be read: {error}") from error
