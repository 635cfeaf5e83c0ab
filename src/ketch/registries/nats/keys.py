"""Keys of records: a record is filed by the name of its service and by each contract, so that either finds it alone.

    service.<name>.<id>     contract.<name>.<id>

Within a part, letters, digits, `-` and `_` stand for themselves, `/` for a dot, and `=C3` for any other byte of UTF-8;
so a key is one that NATS's KV takes, and can be read back.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ...errors import RegistryError

if TYPE_CHECKING:
    from ...registry import Instance

SERVICE: Final = "service"
CONTRACT: Final = "contract"

#: Longest key; a line of the protocol, with the subjects of a message and its reply, has 4096 bytes at most.
_MAX_KEY = 3000

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_BYTE: dict[int, str] = {byte: chr(byte) if byte in _PLAIN else f"={byte:02X}" for byte in range(256)}
_BYTE[ord(".")] = "/"
_ESCAPED = re.compile(r"=([0-9A-F]{2})")


def encode(text: str) -> str:
    """Return a part of a key; `=` for nothing.

    Raises:
        RegistryError: it is no text.
    """
    try:
        return "".join([_BYTE[byte] for byte in text.encode()]) or "="
    except UnicodeEncodeError as error:
        raise RegistryError(f"{text!r} is no name: {error}") from error


def decode(part: str) -> str:
    """Return what a part of a key stands for."""
    if part == "=":
        return ""
    raw = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), part.replace("/", "."))
    return raw.encode("latin-1", "replace").decode("utf-8", "replace")


def keys(instance: Instance) -> list[str]:
    """Return the keys under which an instance is filed.

    Raises:
        RegistryError: its names are too long.
    """
    tail = encode(instance.id)
    made = [f"{SERVICE}.{encode(instance.service)}.{tail}"]
    made += [f"{CONTRACT}.{encode(contract)}.{tail}" for contract in dict.fromkeys(instance.contracts)]
    if max(map(len, made)) > _MAX_KEY:
        raise RegistryError(f"instance {instance.id[:60]!r}: its names are too long for NATS, over {_MAX_KEY} bytes")
    return made


def pattern(name: str | None) -> str:
    """Return the pattern of keys that a watch of `name` reads; each instance is under one of them once."""
    return f"{SERVICE}.*.*" if name is None else f"*.{encode(name)}.*"
