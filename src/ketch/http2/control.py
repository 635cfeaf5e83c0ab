"""Control: SETTINGS, PING and PUSH_PROMISE, the frames that concern a connection and none of its streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import ProtocolError
from . import frames, settings
from .codes import ErrorCode
from .frames import ACK
from .limits import Allowance

if TYPE_CHECKING:
    from collections.abc import Callable

    from .connection import Connection
    from .owner import Owner

_PING_SIZE: Final = 8


class Control:
    """Takes these frames for one connection."""

    def __init__(self, connection: Connection, owner: Owner, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._owner = owner
        self._pings = Allowance("pings", 500, 20, clock)
        self._setups = Allowance("settings", 100, 5, clock)

    def on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Take in the peer's settings (section 6.5)."""
        if stream_id:
            raise ProtocolError("SETTINGS on a stream", ErrorCode.PROTOCOL_ERROR)
        if flags & ACK:
            if payload:
                raise ProtocolError("SETTINGS acknowledgement with content", ErrorCode.FRAME_SIZE_ERROR)
            return
        self._setups.spend()
        peer = self._connection.peer
        before = peer.initial_window_size
        peer.update(payload, from_server=self._connection.client)
        self._connection.sender.max_frame = peer.max_frame_size
        if peer.header_table_size < settings.DEFAULT_TABLE:
            # Once: from then on our encoder's table has no room, which no later setting changes.
            peer.header_table_size = settings.DEFAULT_TABLE
            self._connection.shrink_table = True
        self._connection.sender.write(frames.frame(frames.SETTINGS, ACK, 0))
        self._shift_windows(peer.initial_window_size - before)
        if not self._connection.going:
            self._connection.room = peer.max_concurrent_streams
        self._owner.on_settings()

    def _shift_windows(self, change: int) -> None:
        if change:
            for stream in list(self._connection.streams.values()):
                if not self._connection.sender.grow_stream(stream, change):
                    raise ProtocolError("a stream's window is too large", ErrorCode.FLOW_CONTROL_ERROR)

    def on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002 - a frame's signature
        """Refuse it (section 8.4)."""
        raise ProtocolError("PUSH_PROMISE, which nobody may send us", ErrorCode.PROTOCOL_ERROR)

    def on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Answer a ping, or hear an answer (section 6.7)."""
        if stream_id:
            raise ProtocolError("PING on a stream", ErrorCode.PROTOCOL_ERROR)
        if len(payload) != _PING_SIZE:
            raise ProtocolError("PING of a wrong size", ErrorCode.FRAME_SIZE_ERROR)
        if flags & ACK:
            self._owner.on_pong(payload)
            return
        self._pings.spend()
        self._connection.sender.write(frames.frame(frames.PING, ACK, 0, payload))
