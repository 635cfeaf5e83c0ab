"""Control: SETTINGS, PING, GOAWAY, PRIORITY and what is unknown, the frames that bear on a connection as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import ProtocolError
from . import frames, settings
from .codes import ErrorCode
from .frames import ACK, MAX_31
from .limits import Allowance
from .reader import PRIORITY_SIZE
from .windows import MEASURE

if TYPE_CHECKING:
    from collections.abc import Callable

    from .owner import Owner
    from .settings import Settings
    from .streams import Streams
    from .windows import Windows

_PING_SIZE: Final = 8
_GOAWAY_SIZE: Final = 8
#: Bytes of a GOAWAY's reason that are read.
_REASON: Final = 200


class Control:
    """Takes these frames for one connection.

    Attributes:
        idle: what frames that carry nothing may cost us.
    """

    def __init__(
        self, streams: Streams, peer: Settings, owner: Owner, windows: Windows, clock: Callable[[], float]
    ) -> None:
        self._streams = streams
        self._windows = windows
        self._sender = streams.sender
        self._peer = peer
        self._owner = owner
        self._pings = Allowance("pings", 500, 20, clock)
        self._sent = 0
        self._setups = Allowance("settings", 100, 5, clock)
        self.idle = Allowance("frames that carry nothing", 2000, 200, clock)

    def on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Take in the peer's settings (section 6.5)."""
        if stream_id:
            raise ProtocolError("SETTINGS on a stream", ErrorCode.PROTOCOL_ERROR)
        if flags & ACK:
            if payload:
                raise ProtocolError("SETTINGS acknowledgement with content", ErrorCode.FRAME_SIZE_ERROR)
            return
        self._setups.spend()
        peer, sender = self._peer, self._sender
        before = peer.initial_window_size
        peer.update(payload, from_server=self._streams.client)
        sender.max_frame = peer.max_frame_size
        if peer.header_table_size < settings.DEFAULT_TABLE:
            # Once: from then on our encoder's table has no room, which no later setting changes.
            peer.header_table_size = settings.DEFAULT_TABLE
            sender.shrink_table = True
        sender.write(frames.frame(frames.SETTINGS, ACK, 0))
        self._shift_windows(peer.initial_window_size - before)
        if not self._streams.going:
            self._streams.room = peer.max_concurrent_streams
        self._owner.on_settings()

    def _shift_windows(self, change: int) -> None:
        if change:
            for stream in list(self._streams.values()):
                if not self._sender.grow_stream(stream, change):
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
            if payload == MEASURE:
                self._windows.on_pong()
            else:
                self._owner.on_pong(payload)
            return
        sent = self._sender.sent
        if sent == self._sent:
            self._pings.spend()
        # Peers measure their windows by one ping for each round trip's data, thousands a second on a fast network.
        self._sent = sent
        self._sender.write(frames.frame(frames.PING, ACK, 0, payload))

    def on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002 - a frame's signature
        """Hear that the peer takes no new streams, and which of ours it doesn't look at (section 6.8)."""
        if stream_id:
            raise ProtocolError("GOAWAY on a stream", ErrorCode.PROTOCOL_ERROR)
        if len(payload) < _GOAWAY_SIZE:
            raise ProtocolError("GOAWAY of a wrong size", ErrorCode.FRAME_SIZE_ERROR)
        self.idle.spend()
        streams = self._streams
        streams.stop()
        streams.watched = True
        last, code = frames.word(payload) & MAX_31, frames.word(payload, 4)
        for stream in [stream for stream in streams.values() if streams.client and stream.id > last]:
            streams.drop(stream)
            stream.on_reset(code, "the peer is going away", refused=True)
        reason = payload[_GOAWAY_SIZE : _GOAWAY_SIZE + _REASON].decode("latin-1")
        self._owner.on_goaway(code, reason if reason.isprintable() else "")

    def on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002 - a frame's signature
        """Check it; we don't prioritise (section 5.3.2)."""
        self.idle.spend()
        if not stream_id:
            raise ProtocolError("PRIORITY on stream 0", ErrorCode.PROTOCOL_ERROR)
        if len(payload) != PRIORITY_SIZE:
            self._streams.object(stream_id, "PRIORITY of a wrong size", ErrorCode.FRAME_SIZE_ERROR)
        elif frames.word(payload) & MAX_31 == stream_id:
            self._streams.object(stream_id, "a stream that depends on itself", ErrorCode.PROTOCOL_ERROR)

    def on_unknown(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002 - a frame's signature
        """Ignore it (section 5.5)."""
        self.idle.spend()
