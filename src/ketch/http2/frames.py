"""Frames (RFC 9113 sections 4 and 6): their head, types and flags, and how those that we send are made."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What a client sends first (RFC 9113 section 3.4).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

HEAD_SIZE = 9
#: Stream ids and windows have 31 bits; the bit above is reserved and ignored.
MAX_31 = 0x7FFFFFFF

#: Length (8 + 16 bits), type, flags, stream id.
HEAD = Struct(">BHBBI")
_WORD = Struct(">I")
_SETTING = Struct(">HI")
_GOAWAY = Struct(">II")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    size = len(payload)
    return HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream_id) + payload


def headers(stream_id: int, block: bytes, max_frame: int, *, end: bool) -> bytes:
    """Return a header block as HEADERS and, where it is larger than one frame may be, CONTINUATION frames."""
    flags = END_STREAM if end else 0
    if len(block) <= max_frame:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    parts = [block[at : at + max_frame] for at in range(0, len(block), max_frame)]
    middle = b"".join(frame(CONTINUATION, 0, stream_id, part) for part in parts[1:-1])
    return frame(HEADERS, flags, stream_id, parts[0]) + middle + frame(CONTINUATION, END_HEADERS, stream_id, parts[-1])


def settings(pairs: Iterable[tuple[int, int]]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in pairs))


def window_update(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream_id, _WORD.pack(increment))


def rst_stream(stream_id: int, code: int) -> bytes:
    """Return a RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream_id, _WORD.pack(code))


def goaway(last_stream_id: int, code: int, reason: str) -> bytes:
    """Return a GOAWAY frame; the reason is for the peer's log."""
    return frame(GOAWAY, 0, 0, _GOAWAY.pack(last_stream_id, code) + reason.encode()[:200])


def word(payload: bytes, at: int = 0) -> int:
    """Read 32 bits."""
    value: int = _WORD.unpack_from(payload, at)[0]
    return value
