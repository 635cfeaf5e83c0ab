"""Metadata as header fields, and which names are the protocol's own."""

from __future__ import annotations

import base64
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ..errors import Internal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..http2.compression import Field
    from ..transport import Metadata

NONE: Final[Mapping[str, str]] = MappingProxyType({})

_RESERVED: Final = frozenset({"content-type", "te", "user-agent", "content-length", "host"})
#: What applications say in a name that begins as gRPC's own do (its proposal A6).
_ALLOWED: Final = frozenset({"grpc-retry-pushback-ms"})
_NAME: Final = re.compile(r"[0-9a-z_.-]+")
_VALUE: Final = re.compile(r"[ -~]*")


def fields(metadata: Metadata) -> list[Field]:
    """Return metadata as header fields.

    Raises:
        Internal: a name or value can't be sent; binary values go under a name that ends in `-bin`.
    """
    out = []
    for name, value in metadata.items():
        if not _NAME.fullmatch(name) or is_reserved(name):
            raise Internal(
                f"{name[:40]!r} can't be sent as metadata: lower case, digits, _ . - and no name of gRPC's own"
            )
        text = _text(name, value)
        if name.endswith("-bin") and "," in text:
            # Several binary values: gRPC's C core understands them as fields of their own only, not joined by a comma.
            out += [(name, part.strip().rstrip("=")) for part in text.split(",")]
        else:
            out.append((name, text))
    return out


def _text(name: str, value: str | bytes) -> str:
    binary = name.endswith("-bin")
    if binary and isinstance(value, bytes):
        return base64.b64encode(value).decode().rstrip("=")
    if isinstance(value, bytes) or not _VALUE.fullmatch(value):
        raise Internal(f"metadata {name}: only printable ASCII can be sent; bytes go under a name that ends in -bin")
    return value.strip(" ").rstrip("=") if binary else value.strip(" ")


def collect(headers: Iterable[Field]) -> Mapping[str, str]:
    """Return the metadata among header fields; a name that comes twice has its values joined by a comma."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name[0] == ":" or is_reserved(name):
            continue
        text = value.rstrip("=") if name.endswith("-bin") else value
        found[name] = f"{found[name]},{text}" if name in found else text
    return MappingProxyType(found) if found else NONE


def is_reserved(name: str) -> bool:
    """Whether a name belongs to gRPC or HTTP, not to applications."""
    return name in _RESERVED or (name.startswith("grpc-") and name not in _ALLOWED)
