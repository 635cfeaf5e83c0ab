"""Bytes to frames: preface, frame sizes, padding, and header blocks that come in several frames.

However the bytes are cut, the same frames come out; only of a large DATA frame the pieces are passed on as they come,
for nothing is gained by putting them together first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from ..errors import ProtocolError
from .codes import ErrorCode
from .frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    HEAD,
    HEAD_SIZE,
    HEADERS,
    MAX_31,
    PADDED,
    PREFACE,
    SETTINGS,
    word,
)
from .settings import DEFAULT_FRAME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .limits import Limits

#: (flags, stream id, payload)
OnFrame: TypeAlias = "Callable[[int, int, bytes], None]"
#: (stream id, header block, whether the stream ends, whether its priority depends on itself)
OnBlock: TypeAlias = "Callable[[int, bytes, bool, bool], None]"
#: (bytes, where a HEADERS frame ends there, its flags, stream id and header block) -> where to read on; see `Shortcuts`
OnCall: TypeAlias = "Callable[[bytes, int, int, int, bytes], int]"

PRIORITY_SIZE: Final = 5
#: The flags of a HEADERS frame that is not just a whole block.
_UNUSUAL: Final = END_HEADERS | PADDED | HAS_PRIORITY
#: What `others` has for frame types that we don't know.
UNKNOWN: Final = -1


class Reader:
    """The reading half of a connection.

    Give it `on_data`, `on_block`, what other frame types go to, and `on_call`, which gets each HEADERS frame that is a
    whole block and may read on from there.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        preface: bool,
        on_data: OnFrame,
        on_block: OnBlock,
        others: Mapping[int, OnFrame],
        on_call: OnCall,
    ) -> None:
        self._limits = limits
        self._largest = min(limits.max_frame, limits.max_header_block)
        self._preface = preface
        self._first = True
        self._rest = b""
        self._on_data = on_data
        self._on_block = on_block
        self._on_call = on_call
        self._others = others
        # A header block that is not complete: its stream, flags and pieces.
        self._open = 0
        self._ends = False
        self._looped = False
        self._pieces: list[bytes] = []
        # A DATA frame of which pieces were passed on: the bytes to come, its flags and stream.
        self._due = 0
        self._flags = 0
        self._stream_id = 0
        self._stopped = False
        # How often something was read to its end, and how often when it was last asked about, -1 for between frames.
        self._turns = 0
        self._asked = -1

    def stop(self) -> None:
        """Read no further frame."""
        self._stopped = True
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take bytes and pass on the frames they complete.

        Raises:
            ProtocolError: from here or from whoever was called; the connection has to end.
        """
        if self._due:
            data = self._go_on(data)
        if self._rest or self._preface:
            data = self._join(data)
        at, end = 0, len(data)
        unpack, largest = HEAD.unpack_from, self._largest
        on_data, on_call = self._on_data, self._on_call
        while end - at >= HEAD_SIZE and not self._stopped:
            high, low, kind, flags, stream_id = unpack(data, at)
            size = high << 16 | low
            if size > largest or self._first:
                self._check_start(size, kind, flags)
            stop = at + HEAD_SIZE + size
            if stop > end:
                at = self._start(data, at)
                break
            payload = data[at + HEAD_SIZE : stop]
            at = stop
            if self._open:
                self._continue(kind, flags, stream_id & MAX_31, payload)
            elif kind == DATA:
                on_data(flags, stream_id & MAX_31, payload)
            elif kind == HEADERS and flags & _UNUSUAL == END_HEADERS:
                at = on_call(data, at, flags, stream_id & MAX_31, payload)
            else:
                self._other(kind, flags, stream_id & MAX_31, payload)
        self._turns += at > 0
        if not self._stopped and (at or not self._rest):
            self._rest = data[at:]

    def is_stuck(self) -> bool:
        """Whether a frame that was incomplete when this was last asked still is."""
        before, self._asked = self._asked, self._turns if self._rest else -1
        return before == self._asked >= 0

    def _start(self, data: bytes, at: int) -> int:
        """Pass on what came of a large DATA frame; return where to go on reading."""
        high, low, kind, flags, stream_id = HEAD.unpack_from(data, at)
        size = high << 16 | low
        if size <= DEFAULT_FRAME or kind != DATA or flags & PADDED or self._open:
            return at
        self._due, self._flags, self._stream_id = size, flags, stream_id & MAX_31
        self._go_on(data[at + HEAD_SIZE :])
        return len(data)

    def _go_on(self, data: bytes) -> bytes:
        """Pass on a piece of a DATA frame and return what comes after it."""
        piece = data[: self._due]
        self._due -= len(piece)
        if piece:
            self._on_data(self._flags & ~END_STREAM if self._due else self._flags, self._stream_id, piece)
        return data[len(piece) :]

    def _join(self, data: bytes) -> bytes:
        """Return what is to be read, with what was left the last time; nothing before the preface is complete."""
        data, self._rest = self._rest + data, b""
        return self._skip_preface(data) if self._preface else data

    def _skip_preface(self, data: bytes) -> bytes:
        if data[: len(PREFACE)] != PREFACE[: len(data)]:
            raise ProtocolError("not HTTP/2: the preface is missing", ErrorCode.PROTOCOL_ERROR)
        if len(data) < len(PREFACE):
            self._rest = data
            return b""
        self._preface = False
        return data[len(PREFACE) :]

    def _check_start(self, size: int, kind: int, flags: int) -> None:
        if self._first and (kind != SETTINGS or flags & ACK):
            raise ProtocolError("not HTTP/2: it did not start with SETTINGS", ErrorCode.PROTOCOL_ERROR)
        if size > (self._limits.max_frame if kind == DATA else self._largest):
            raise ProtocolError(f"frame of {size} bytes", ErrorCode.FRAME_SIZE_ERROR)
        self._first = False

    def _other(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == HEADERS:
            self._headers(flags, stream_id, payload)
        elif kind == CONTINUATION:
            raise ProtocolError("CONTINUATION of nothing", ErrorCode.PROTOCOL_ERROR)
        else:
            on_frame = self._others.get(kind) or self._others[UNKNOWN]
            on_frame(flags, stream_id, payload)

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        looped = False
        if flags & PADDED:
            payload = unpad(payload)
        if flags & HAS_PRIORITY:
            if len(payload) < PRIORITY_SIZE:
                raise ProtocolError("HEADERS too short for its priority", ErrorCode.FRAME_SIZE_ERROR)
            looped = word(payload) & MAX_31 == stream_id
            payload = payload[PRIORITY_SIZE:]
        if flags & END_HEADERS:
            self._on_block(stream_id, payload, bool(flags & END_STREAM), looped)
            return
        if not stream_id:
            raise ProtocolError("HEADERS on stream 0", ErrorCode.PROTOCOL_ERROR)
        self._open, self._ends, self._looped = stream_id, bool(flags & END_STREAM), looped
        self._pieces = [payload]

    def _continue(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind != CONTINUATION or stream_id != self._open:
            raise ProtocolError("another frame within a header block", ErrorCode.PROTOCOL_ERROR)
        pieces = self._pieces
        pieces.append(payload)
        limits = self._limits
        if len(pieces) > limits.max_continuations or sum(map(len, pieces)) > limits.max_header_block:
            raise ProtocolError("endless header block", ErrorCode.ENHANCE_YOUR_CALM)
        if flags & END_HEADERS:
            self._open, self._pieces = 0, []
            self._on_block(stream_id, b"".join(pieces), self._ends, self._looped)


def unpad(payload: bytes) -> bytes:
    """Return the payload of a padded DATA or HEADERS frame without its padding.

    Raises:
        ProtocolError: there is more padding than payload (RFC 9113 section 6.1).
    """
    if not payload:
        raise ProtocolError("padded frame without a pad length", ErrorCode.FRAME_SIZE_ERROR)
    padding = payload[0]
    if padding >= len(payload):
        raise ProtocolError("more padding than payload", ErrorCode.PROTOCOL_ERROR)
    return payload[1 : len(payload) - padding]
