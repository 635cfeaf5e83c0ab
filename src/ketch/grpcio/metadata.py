"""Metadata: grpcio's pairs, in which a name may come several times, and ketch's mapping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import grpc.aio

from ..context import from_base64, to_base64

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: Carries `google.rpc.Status`; ketch sends it by itself, from an error's details.
DETAILS: Final = "grpc-status-details-bin"


class Pair(NamedTuple):
    """One entry, with names for its parts as grpcio's has them."""

    key: str
    value: str | bytes


def pairs(metadata: Mapping[str, str | bytes] | None) -> Iterator[Pair]:
    """Yield ketch's metadata as pairs; values of names that end in `-bin` are bytes, one pair for each time it came."""
    for name, value in (metadata or {}).items():
        if not name.endswith("-bin") or isinstance(value, bytes):
            yield Pair(name, value)
            continue
        try:
            yield from (Pair(name, item) for item in from_base64(value))
        except ValueError:
            yield Pair(name, value.encode())  # a peer's mistake; its bytes are all that is known


def stock(metadata: Mapping[str, str | bytes] | None) -> grpc.aio.Metadata:
    """Return ketch's metadata as grpcio's."""
    return grpc.aio.Metadata(*pairs(metadata))


def mapping(metadata: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str | bytes]:
    """Return grpcio's metadata as ketch's: values of a name that comes twice are joined by a comma, as HTTP has it.

    Raises:
        TypeError: an entry isn't a name and a text, or bytes.
    """
    found: dict[str, str | bytes] = {}
    for name, value in metadata or ():
        if not isinstance(value, str | bytes):  # a number, as a rule, which grpcio doesn't take either
            raise TypeError(f"metadata must be pairs of a name and a text or bytes, not {name!r}")
        text = _text(name, value)
        found[name] = f"{found[name]!s},{text}" if name in found else text
    return found


def _text(name: str, value: str | bytes) -> str:
    if name.endswith("-bin"):
        return to_base64(value if isinstance(value, bytes) else value.encode())
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
