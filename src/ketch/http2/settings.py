"""SETTINGS (RFC 9113 section 6.5): what the peer allows, and what we tell it."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from ..errors import ProtocolError
from .codes import ErrorCode
from .frames import MAX_31

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .limits import Limits

HEADER_TABLE_SIZE = 0x1
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6

DEFAULT_WINDOW = 65_535
DEFAULT_FRAME = 16_384
DEFAULT_TABLE = 4096
_LARGEST_FRAME = 16_777_215

_SETTING = Struct(">HI")


class Settings:
    """What the peer has said, and until then what the RFC presumes."""

    __slots__ = ("header_table_size", "initial_window_size", "max_concurrent_streams", "max_frame_size")

    def __init__(self) -> None:
        self.header_table_size = DEFAULT_TABLE
        self.max_concurrent_streams = MAX_31
        self.initial_window_size = DEFAULT_WINDOW
        self.max_frame_size = DEFAULT_FRAME

    def update(self, payload: bytes, *, from_server: bool) -> None:
        """Take in a SETTINGS frame; unknown settings are ignored, as the RFC demands.

        Raises:
            ProtocolError: a value is out of its range; the code is the one that section 6.5.2 names.
        """
        for name, value in _pairs(payload):
            _check(name, value, from_server=from_server)
            if name == INITIAL_WINDOW_SIZE:
                self.initial_window_size = value
            elif name == MAX_FRAME_SIZE:
                self.max_frame_size = value
            elif name == MAX_CONCURRENT_STREAMS:
                self.max_concurrent_streams = value
            elif name == HEADER_TABLE_SIZE:
                # The smallest one counts: our encoder has to shrink to it before it may grow again.
                self.header_table_size = min(self.header_table_size, value)


def ours(limits: Limits, *, client: bool) -> list[tuple[int, int]]:
    """Return the settings that we send; a client takes no pushed responses."""
    pairs = [
        (INITIAL_WINDOW_SIZE, limits.stream_window),
        (MAX_FRAME_SIZE, limits.max_frame),
        (MAX_HEADER_LIST_SIZE, limits.max_header_list),
    ]
    return [(ENABLE_PUSH, 0), *pairs] if client else [(MAX_CONCURRENT_STREAMS, limits.max_streams), *pairs]


def _pairs(payload: bytes) -> Iterator[tuple[int, int]]:
    if len(payload) % _SETTING.size:
        raise ProtocolError("SETTINGS of a broken length", ErrorCode.FRAME_SIZE_ERROR)
    return _SETTING.iter_unpack(payload)


def _check(name: int, value: int, *, from_server: bool) -> None:
    if name == ENABLE_PUSH and (value > 1 or (from_server and value)):
        raise ProtocolError(f"SETTINGS_ENABLE_PUSH is {value}", ErrorCode.PROTOCOL_ERROR)
    if name == INITIAL_WINDOW_SIZE and value > MAX_31:
        raise ProtocolError(f"SETTINGS_INITIAL_WINDOW_SIZE is {value}", ErrorCode.FLOW_CONTROL_ERROR)
    if name == MAX_FRAME_SIZE and not DEFAULT_FRAME <= value <= _LARGEST_FRAME:
        raise ProtocolError(f"SETTINGS_MAX_FRAME_SIZE is {value}", ErrorCode.PROTOCOL_ERROR)
