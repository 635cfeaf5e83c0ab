"""The little of protobuf's wire format that statuses need (protobuf.dev/programming-guides/encoding)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5


def number(tag: int, value: int) -> bytes:
    """Return a field that holds an unsigned integer."""
    return varint(tag << 3 | _VARINT) + varint(value)


def chunk(tag: int, data: bytes) -> bytes:
    """Return a field that holds bytes, text or a message."""
    return varint(tag << 3 | _BYTES) + varint(len(data)) + data


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield a message's fields in order, by number; those of fixed width are passed over.

    Raises:
        ValueError: it is no message.
    """
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield tag >> 3, value
        elif kind == _BYTES:
            size, at = _read_varint(data, at)
            if at + size > len(data):
                raise ValueError("a protobuf message is cut off")
            yield tag >> 3, data[at : at + size]
            at += size
        elif kind in {_FIXED32, _FIXED64}:
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError("a protobuf message is broken")


def varint(value: int) -> bytes:
    """Return an unsigned integer, seven bits a byte."""
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the top bit says that more follows
            return value, at
    raise ValueError("varint is cut off")
