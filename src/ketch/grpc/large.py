"""Large: a message that comes in many pieces, put together once, when the last one is there."""

from __future__ import annotations

from typing import Final

#: Bytes from which on a message counts as large: copying it costs more than keeping account of its pieces.
LARGE: Final = 65_536
#: Bytes below which pieces are put together at once, so that a peer that sends single bytes costs no object for each.
_SMALL: Final = 8192


class Large:
    """The body of one message.

    Attributes:
        flag: the first byte of its prefix.
        size: of the body in bytes.
        missing: bytes that are still to come.
    """

    __slots__ = ("_pieces", "flag", "missing", "size")

    def __init__(self, flag: int, size: int, start: bytes) -> None:
        self.flag = flag
        self.size = size
        self.missing = size - len(start)
        self._pieces: list[bytes | bytearray] = [start]

    def feed(self, payload: bytes) -> bytes:
        """Take what belongs to the message; return what comes after it."""
        piece = payload[: self.missing]
        self.missing -= len(piece)
        last = self._pieces[-1]
        if len(piece) >= _SMALL:
            self._pieces.append(piece)
        elif isinstance(last, bytearray):
            last += piece
        else:
            self._pieces.append(bytearray(piece))
        return payload[len(piece) :]

    def join(self) -> bytes:
        """Return the body; nothing is missing."""
        return b"".join(self._pieces)
