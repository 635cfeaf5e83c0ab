"""Framing: a message as it travels: whether it is compressed, its length in four bytes, and its body."""

from __future__ import annotations

from typing import Final

from ..errors import ResourceExhausted
from .compression import shrink

PREFIX: Final = 5
#: Bytes below which a message is sent as it is, unless its sender insists: the effort is more than the gain.
WORTHWHILE: Final = 1024


def check(size: int, limit: int) -> None:
    """Refuse a message that is too large.

    Raises:
        ResourceExhausted: it is.
    """
    if size > limit:
        raise ResourceExhausted(f"a message of {size} bytes is larger than the limit of {limit}")


def prefix(body: bytes, limit: int) -> bytes:
    """Return what goes before a message; a large one is sent without being put behind it first.

    Raises:
        ResourceExhausted: the message is too large.
    """
    size = len(body)
    check(size, limit)
    return b"\0" + size.to_bytes(4)


def frame(body: bytes, limit: int) -> bytes:
    """Return a message with its prefix.

    Raises:
        ResourceExhausted: it is too large.
    """
    size = len(body)
    check(size, limit)
    return b"\0" + size.to_bytes(4) + body


def frame_compressed(body: bytes, limit: int, *, insist: bool) -> bytes:
    """Return a message compressed, with its prefix; as it is where that isn't shorter, unless its sender insists.

    Raises:
        ResourceExhausted: it is too large before it is compressed.
    """
    size = len(body)
    check(size, limit)
    if size < WORTHWHILE and not insist:
        return frame(body, limit)
    packed = shrink(body)
    if len(packed) >= size and not insist:
        return frame(body, limit)
    return b"\1" + len(packed).to_bytes(4) + packed
