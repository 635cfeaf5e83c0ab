"""Content types: `application/grpc+json` on the wire is `application/json` for everybody else."""

from __future__ import annotations

from typing import Final

_GRPC: Final = "application/grpc"
_PROTOBUF: Final = "application/protobuf"
_PREFIX: Final = "application/"


def to_wire(content_type: str) -> str:
    """Return the wire's content type for a body's media type."""
    if content_type == _PROTOBUF:
        return _GRPC
    return f"{_GRPC}+{content_type.removeprefix(_PREFIX)}"


def from_wire(content_type: str) -> str:
    """Return the body's media type, "" where the wire's content type isn't gRPC's."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in {_GRPC, f"{_GRPC}+proto"}:
        return _PROTOBUF
    if kind.startswith(f"{_GRPC}+"):
        return _PREFIX + kind[len(_GRPC) + 1 :]
    return ""
