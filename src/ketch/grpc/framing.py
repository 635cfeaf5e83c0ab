"""Framing: what goes before a message: whether it is compressed, and its length in four bytes."""

from __future__ import annotations

from typing import Final

from ..errors import ResourceExhausted
from .compression import shrink

PREFIX: Final = 5
#: Bytes below which a message is sent as it is, unless its sender insists: the effort is more than the gain.
WORTHWHILE: Final = 1024

_COMMON: Final = 4096
#: The prefixes of small messages, made at the first of each size.
_prefixes: dict[int, bytes] = {}


def too_large(size: int, limit: int) -> ResourceExhausted:
    """Return the error for a message that is larger than it may be."""
    return ResourceExhausted(f"a message of {size} bytes is larger than the limit of {limit}")


def prefix(body: bytes, limit: int) -> bytes:
    """Return what goes before a message that is sent as it is.

    Raises:
        ResourceExhausted: the message is too large.
    """
    size = len(body)
    if size > limit:
        raise too_large(size, limit)
    return _prefixes.get(size) or _make(size)


def _make(size: int) -> bytes:
    made = b"\0" + size.to_bytes(4)
    if size < _COMMON:
        _prefixes[size] = made
    return made


def compress(body: bytes, limit: int, *, insist: bool) -> tuple[bytes, bytes]:
    """Return a message's prefix and the message, compressed unless that isn't shorter, or if its sender insists.

    Raises:
        ResourceExhausted: the message is too large before it is compressed.
    """
    plain = prefix(body, limit)
    if len(body) < WORTHWHILE and not insist:
        return plain, body
    packed = shrink(body)
    if len(packed) >= len(body) and not insist:
        return plain, body
    return b"\1" + len(packed).to_bytes(4), packed
