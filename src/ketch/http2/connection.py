"""What each frame means, and the life of streams (RFC 9113 sections 5 and 6).

    c = Connection(owner, client=False)      what it sends first is queued at once
    c.receive(bytes)                         calls owner.on_stream, then the stream's on_headers, on_data, on_reset
    c.sender.take()                          the bytes to write, after owner.wake() was called

It never raises for what a peer does: a violation of a stream's rules resets that stream, one of the connection's ends
it with GOAWAY and the code that the RFC names, `owner.on_end` is called, and every stream hears `on_reset`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from ..errors import ProtocolError
from . import frames, settings
from .codes import ErrorCode, name_of
from .compression import NO_TABLE, Decoder
from .control import Control
from .frames import END_HEADERS, END_STREAM, HEAD, HEADERS, MAX_31, PADDED
from .headers import request_problem, response_problem, trailer_problem
from .limits import Allowance, Limits
from .past import Past
from .reader import PRIORITY_SIZE, UNKNOWN, Reader, unpad
from .sender import Sender
from .settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from .compression import Headers
    from .owner import Owner
    from .stream import Stream

_WORD_SIZE: Final = 4
_GOAWAY_SIZE: Final = 8


class Connection:
    """One side of an HTTP/2 connection.

    Attributes:
        client: which side this is.
        streams: the open ones, by id.
        peer: the settings that the peer sent.
        ended: nothing is read any more.
        going: no new stream may be opened: GOAWAY was received, or the ids are used up.
        room: how many streams we may have open at a time.
        shrink_table: the next header block has to say that our encoder uses no table.
        watched: the owner wants to hear of each stream that ends; set by either side's GOAWAY too.
    """

    def __init__(
        self,
        owner: Owner,
        *,
        client: bool,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits or Limits()
        self.peer = Settings()
        self.streams: dict[int, Stream] = {}
        self.ended = False
        self.going = False
        self.room = 0 if client else MAX_31
        self.watched = False
        self._owner = owner
        self.client = client
        self._check = response_problem if client else request_problem
        self._decoder = Decoder(self.limits.max_header_list)
        self.sender = Sender(owner.wake, owner.flush, self._sent_end)
        self._control = Control(self, owner, clock)
        self._reader = self._make_reader()
        self._past = Past(client=client)
        self._window = self.limits.connection_window
        self.shrink_table = False
        self._idle = Allowance("frames that carry nothing", 2000, 200, clock)
        self._resets = Allowance("reset streams", 1000, 100, clock)
        self._start()

    def _start(self) -> None:
        hello = frames.settings(settings.ours(self.limits, client=self.client))
        if self.client:
            hello = frames.PREFACE + hello
        increment = self.limits.connection_window - settings.DEFAULT_WINDOW
        self.sender.write(hello + frames.window_update(0, increment))

    def _make_reader(self) -> Reader:
        others = {
            frames.PRIORITY: self._on_priority,
            frames.RST_STREAM: self._on_rst_stream,
            frames.SETTINGS: self._control.on_settings,
            frames.PUSH_PROMISE: self._control.on_push_promise,
            frames.PING: self._control.on_ping,
            frames.GOAWAY: self._on_goaway,
            frames.WINDOW_UPDATE: self._on_window_update,
            UNKNOWN: self._on_unknown,
        }
        return Reader(
            self.limits, preface=not self.client, on_data=self._on_data, on_block=self._on_block, others=others
        )

    # What the owner does

    def receive(self, data: bytes) -> None:
        """Take bytes from the peer."""
        if self.ended:
            return
        try:
            self._reader.feed(data)
            if self.sender.overrun:
                self._fail(ProtocolError("answers aren't read", ErrorCode.ENHANCE_YOUR_CALM))
        except ProtocolError as error:
            self._fail(error)

    def attach(self, stream: Stream) -> None:
        """Give a new stream of ours its id. Send its headers next: ids have to appear in order."""
        stream.id = self._past.next
        self._past.next += 2
        if self._past.next > MAX_31:  # after 2**30 calls, half a day at full speed
            self.going = self.watched = True
            self.room = 0
        self.streams[stream.id] = stream

    def headers(self, stream: Stream, block: bytes) -> bytes:
        """Return the frames of a header block, to be sent at once."""
        size = len(block)
        if size <= settings.DEFAULT_FRAME and not self.shrink_table:
            return HEAD.pack(0, size, HEADERS, END_HEADERS, stream.id) + block
        return self.sender.headers(stream.id, self._prepare(block), end=False)

    def trailers(self, stream: Stream, block: bytes) -> bytes:
        """Return the frames of trailers, to be sent at once or after what is pending."""
        size = len(block)
        if size <= settings.DEFAULT_FRAME and not self.shrink_table:
            return HEAD.pack(0, size, HEADERS, END_HEADERS | END_STREAM, stream.id) + block
        return self.sender.headers(stream.id, self._prepare(block), end=True)

    def end(self, stream: Stream, block: bytes) -> None:
        """Send trailers, after what is pending."""
        self.sender.finish(stream, self.trailers(stream, block))

    def reset(self, stream: Stream, code: int) -> None:
        """Give a stream up and tell the peer. No error when it has ended."""
        if not stream.closed:
            self._drop(stream)
            self.sender.write(frames.rst_stream(stream.id, code))

    def ping(self, payload: bytes) -> None:
        """Ask for a sign of life: `owner.on_pong` gets these eight bytes back."""
        self.sender.write(frames.frame(frames.PING, 0, 0, payload))

    def announce_end(self) -> None:
        """Ask the peer to open no more streams; those that are under way are still taken (section 6.8)."""
        self.sender.write(frames.goaway(MAX_31, ErrorCode.NO_ERROR, "stopping"))

    def refuse_more(self) -> None:
        """Take no further stream: what comes later the peer may try elsewhere."""
        if self._past.last_taken == MAX_31:
            self._past.last_taken = self._past.highest
            self.watched = True
            self.sender.write(frames.goaway(self._past.highest, ErrorCode.NO_ERROR, "stopping"))

    def close(self, reason: str) -> None:
        """End the connection in good order: GOAWAY, and every stream that is left hears `on_reset`."""
        if not self.ended:
            self.sender.write(frames.goaway(self._past.highest, ErrorCode.NO_ERROR, reason))
            self.lose(reason)

    def lose(self, reason: str) -> None:
        """Hear that the connection is gone; every stream that is left hears `on_reset`."""
        self._stop_reading()
        self._reset_all(ErrorCode.NO_ERROR, reason)

    def open_window(self, stream: Stream, increment: int) -> None:
        """Let the peer send more on a stream; `Stream.consume` decides when."""
        stream.receive_window += increment
        self.sender.write(frames.window_update(stream.id, increment))

    # Inside

    def _prepare(self, block: bytes) -> bytes:
        if self.shrink_table:
            self.shrink_table = False
            return NO_TABLE + block
        return block

    def _fail(self, error: ProtocolError) -> None:
        if self.ended:
            return
        self.sender.write(frames.goaway(self._past.highest, error.code, str(error)))
        self._stop_reading()
        self._reset_all(error.code, str(error))
        self._owner.on_end(error)

    def _stop_reading(self) -> None:
        self.ended = True
        self.going = True
        self.room = 0
        self._reader.stop()

    def _reset_all(self, code: int, reason: str) -> None:
        for stream in list(self.streams.values()):
            self._forget(stream)
            stream.on_reset(code, reason, refused=False)

    def _sent_end(self, stream: Stream) -> None:
        stream.sent_end = True
        if stream.got_end:
            self._forget(stream)
            if self._resets.used:
                self._resets.earn()

    def _got_end(self, stream: Stream) -> None:
        if stream.expected > 0:
            self._break(stream, "the body is shorter than its content-length")
        elif stream.sent_end and not stream.closed:
            self._forget(stream)
            if self._resets.used:
                self._resets.earn()

    def _forget(self, stream: Stream) -> None:
        stream.closed = True
        self.streams.pop(stream.id, None)
        if stream.pending is not None:
            self.sender.forget(stream)
        if self.watched:
            self._owner.on_ended_stream()

    def _drop(self, stream: Stream) -> None:
        self._forget(stream)
        self._past.drop(stream.id)

    def _break(self, stream: Stream, reason: str, code: int = ErrorCode.PROTOCOL_ERROR) -> None:
        """Reset a stream whose rules the peer broke."""
        self._drop(stream)
        self._resets.spend()
        self.sender.write(frames.rst_stream(stream.id, code))
        stream.on_reset(code, reason, refused=False)

    def _reject(self, stream_id: int, code: int) -> None:
        """Reset a stream that never got an object."""
        self._past.drop(stream_id)
        self._resets.spend()
        self.sender.write(frames.rst_stream(stream_id, code))

    # Frames

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._window -= size
        if self._window * 2 < self.limits.connection_window:
            self._open_connection()
        stream = self.streams.get(stream_id)
        if stream is None or stream.got_end:
            self._on_stray_data(stream_id, stream)
            return
        stream.receive_window -= size
        if stream.receive_window < 0:
            self._break(stream, "more data than the stream's window", ErrorCode.FLOW_CONTROL_ERROR)
            return
        if flags & PADDED:
            payload = unpad(payload)
            stream.consume(size - len(payload))
        end = bool(flags & END_STREAM)
        if not payload and not end:
            self._idle.spend()
        if stream.expected >= 0:
            stream.expected -= len(payload)
            if stream.expected < 0:
                self._break(stream, "the body is longer than its content-length")
                return
        stream.got_end = end
        stream.on_data(payload, end=end)
        if end:
            self._got_end(stream)

    def _open_connection(self) -> None:
        # Refilled as it comes, whatever the streams' readers do: one that doesn't read must not stop the others.
        if self._window < 0:
            raise ProtocolError("more data than the connection's window", ErrorCode.FLOW_CONTROL_ERROR)
        increment = self.limits.connection_window - self._window
        self._window += increment
        self.sender.write(frames.window_update(0, increment))

    def _on_stray_data(self, stream_id: int, stream: Stream | None) -> None:
        if stream is not None:
            self._break(stream, "data after the end", ErrorCode.STREAM_CLOSED)
            return
        self._past.require_used(stream_id, "DATA")
        if self._past.is_dropped(stream_id):
            return
        self._reject(stream_id, ErrorCode.STREAM_CLOSED)

    def _on_block(self, stream_id: int, block: bytes, end: bool, looped: bool) -> None:  # noqa: FBT001 - see Reader
        headers = self._decoder.decode(block)
        stream = self.streams.get(stream_id)
        if stream is None:
            stream = self._on_new(stream_id, headers, looped=looped)
            if stream is None:
                return
            problem = self._check(headers) if headers.problem is None else headers.problem
            if headers.length >= 0 and not end:
                stream.expected = headers.length
        elif stream.got_end:
            self._break(stream, "headers after the end", ErrorCode.STREAM_CLOSED)
            return
        elif self.client:
            # The first list is a response's, and so is each that comes before it with a status of 1xx.
            if end and not (headers.fields and headers.fields[0][0] == ":status"):
                problem = trailer_problem(headers) if headers.trailer_problem is None else headers.trailer_problem
            else:
                problem = self._check(headers) if headers.problem is None else headers.problem
        else:
            problem = trailer_problem(headers) if end else "trailers that don't end the stream"
        if looped:
            problem = "a stream that depends on itself"
        if problem:
            self._break(stream, problem)
            return
        stream.got_end = end
        stream.on_headers(headers, end=end)
        if end:
            self._got_end(stream)

    def _on_new(self, stream_id: int, headers: Headers, *, looped: bool) -> Stream | None:
        if self.client or not stream_id & 1:
            self._on_unexpected(stream_id)
            return None
        if stream_id <= self._past.highest:
            self._on_late(stream_id)
            return None
        self._past.opened(stream_id)
        if stream_id > self._past.last_taken:
            return None  # GOAWAY told the peer that we don't look at it
        if len(self.streams) >= self.limits.max_streams:
            self._reject(stream_id, ErrorCode.REFUSED_STREAM)
            return None
        if looped:
            self._reject(stream_id, ErrorCode.PROTOCOL_ERROR)
            return None
        stream = self._owner.on_stream(stream_id, headers)
        self.streams[stream_id] = stream
        return stream

    def _on_unexpected(self, stream_id: int) -> None:
        self._past.require_used(stream_id, "HEADERS")
        if not self._past.is_dropped(stream_id):
            raise ProtocolError(f"HEADERS on closed stream {stream_id}", ErrorCode.STREAM_CLOSED)

    def _on_late(self, stream_id: int) -> None:
        if self._past.is_dropped(stream_id):
            self._idle.spend()
            return
        self._past.refuse_late(stream_id)

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002 - a frame's signature
        self._idle.spend()
        if not stream_id:
            raise ProtocolError("PRIORITY on stream 0", ErrorCode.PROTOCOL_ERROR)
        if len(payload) != PRIORITY_SIZE:
            self._object(stream_id, "PRIORITY of a wrong size", ErrorCode.FRAME_SIZE_ERROR)
        elif frames.word(payload) & MAX_31 == stream_id:
            self._object(stream_id, "a stream that depends on itself", ErrorCode.PROTOCOL_ERROR)

    def _object(self, stream_id: int, reason: str, code: ErrorCode) -> None:
        """Reset an open stream; the RFC lets an error on any other one end the connection."""
        stream = self.streams.get(stream_id)
        if stream is None:
            raise ProtocolError(reason, code)
        self._break(stream, reason, code)

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002 - a frame's signature
        if len(payload) != _WORD_SIZE:
            raise ProtocolError("RST_STREAM of a wrong size", ErrorCode.FRAME_SIZE_ERROR)
        self._past.require_used(stream_id, "RST_STREAM")
        self._resets.spend()
        stream = self.streams.get(stream_id)
        if stream is not None:
            code = frames.word(payload)
            self._drop(stream)
            stream.on_reset(
                code, f"the peer reset the stream: {name_of(code)}", refused=code == ErrorCode.REFUSED_STREAM
            )

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002 - a frame's signature
        if stream_id:
            raise ProtocolError("GOAWAY on a stream", ErrorCode.PROTOCOL_ERROR)
        if len(payload) < _GOAWAY_SIZE:
            raise ProtocolError("GOAWAY of a wrong size", ErrorCode.FRAME_SIZE_ERROR)
        self._idle.spend()
        self.going = self.watched = True
        self.room = 0
        last, code = frames.word(payload) & MAX_31, frames.word(payload, 4)
        for stream in [stream for stream in self.streams.values() if self.client and stream.id > last]:
            self._drop(stream)
            stream.on_reset(code, "the peer is going away", refused=True)
        reason = payload[_GOAWAY_SIZE : _GOAWAY_SIZE + 200].decode("latin-1")
        self._owner.on_goaway(code, reason if reason.isprintable() else "")

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002 - a frame's signature
        if len(payload) != _WORD_SIZE:
            raise ProtocolError("WINDOW_UPDATE of a wrong size", ErrorCode.FRAME_SIZE_ERROR)
        increment = frames.word(payload) & MAX_31
        if not stream_id:
            if not increment:
                raise ProtocolError("WINDOW_UPDATE by nothing", ErrorCode.PROTOCOL_ERROR)
            if not self.sender.grow(increment):
                raise ProtocolError("the connection's window is too large", ErrorCode.FLOW_CONTROL_ERROR)
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            self._past.require_used(stream_id, "WINDOW_UPDATE")
        elif not increment:
            self._break(stream, "WINDOW_UPDATE by nothing")
        elif not self.sender.grow_stream(stream, increment):
            self._break(stream, "the stream's window is too large", ErrorCode.FLOW_CONTROL_ERROR)

    def _on_unknown(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002 - a frame's signature
        self._idle.spend()
