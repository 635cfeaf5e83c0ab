"""What each frame of a stream means (RFC 9113 section 6), and what an owner does with a connection.

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
from .compression import Decoder
from .control import Control
from .frames import END_HEADERS, END_STREAM, HEAD, HEADERS, MAX_31, PADDED
from .headers import later_problem, request_problem, response_problem
from .limits import Limits
from .reader import UNKNOWN, Reader, unpad
from .settings import Settings
from .shortcuts import Shortcuts
from .streams import Streams
from .windows import Windows

if TYPE_CHECKING:
    from collections.abc import Callable

    from .compression import Headers
    from .owner import Owner
    from .stream import Stream

_WORD_SIZE: Final = 4


class Connection:
    """One side of an HTTP/2 connection.

    Attributes:
        client: which side this is.
        streams: the open ones, by id, and how they end.
        sender: what goes out.
        peer: the settings that the peer sent.
        ended: nothing is read any more.
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
        self.client = client
        self.ended = False
        self.streams = Streams(owner, self.limits, clock, client=client)
        self.sender = self.streams.sender
        self._owner = owner
        self._past = self.streams.past
        self._check = response_problem if client else request_problem
        self._decoder = Decoder(self.limits.max_header_list)
        self._windows = Windows(self.streams, self.limits, clock)
        self._control = Control(self.streams, self.peer, owner, self._windows, clock)
        self._reader = self._make_reader()
        self._start()

    def _start(self) -> None:
        hello = frames.settings(settings.ours(self.limits, client=self.client))
        if self.client:
            hello = frames.PREFACE + hello
        increment = self.limits.connection_window - settings.DEFAULT_WINDOW
        self.sender.write(hello + frames.window_update(0, increment))

    def _make_reader(self) -> Reader:
        others = {
            frames.PRIORITY: self._control.on_priority,
            frames.RST_STREAM: self._on_rst_stream,
            frames.SETTINGS: self._control.on_settings,
            frames.PUSH_PROMISE: self._control.on_push_promise,
            frames.PING: self._control.on_ping,
            frames.GOAWAY: self._control.on_goaway,
            frames.WINDOW_UPDATE: self._windows.on_window_update,
            UNKNOWN: self._control.on_unknown,
        }
        shortcuts = Shortcuts(
            self.streams, self._windows, self._decoder.blocks, self._owner, self.limits, self._on_block
        )
        return Reader(
            self.limits,
            preface=not self.client,
            on_data=self._on_data,
            on_block=self._on_block,
            others=others,
            on_call=shortcuts.response if self.client else shortcuts.request,
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
        self.streams.attach(stream)

    def headers(self, stream: Stream, block: bytes) -> bytes:
        """Return the frames of a header block, to be sent at once."""
        size = len(block)
        if size <= settings.DEFAULT_FRAME and not self.sender.shrink_table:
            return HEAD.pack(0, size, HEADERS, END_HEADERS, stream.id) + block
        return self.sender.headers(stream.id, block, end=False)

    def trailers(self, stream: Stream, block: bytes) -> bytes:
        """Return the frames of trailers, to be sent at once or after what is pending."""
        size = len(block)
        if size <= settings.DEFAULT_FRAME and not self.sender.shrink_table:
            return HEAD.pack(0, size, HEADERS, END_HEADERS | END_STREAM, stream.id) + block
        return self.sender.headers(stream.id, block, end=True)

    def piecemeal(self, stream: Stream, head: bytes, lead: bytes, message: bytes, tail: bytes) -> None:
        """Send what `Sender.whole` could not send at once."""
        trailers = self.trailers(stream, tail) if tail else b""
        self.sender.message(stream, self.headers(stream, head), message, end=not tail, trailers=trailers, lead=lead)

    def end(self, stream: Stream, block: bytes) -> None:
        """Send trailers, after what is pending."""
        self.sender.finish(stream, self.trailers(stream, block))

    def reset(self, stream: Stream, code: int) -> None:
        """Give a stream up and tell the peer. No error when it has ended."""
        self.streams.reset(stream, code)

    def ping(self, payload: bytes) -> None:
        """Ask for a sign of life: `owner.on_pong` gets these eight bytes back."""
        self.sender.write(frames.frame(frames.PING, 0, 0, payload))

    def check_progress(self) -> None:
        """End the connection if it waits for the rest of the same frame as when this was last called."""
        if self._reader.is_stuck():
            self._fail(ProtocolError("a frame takes too long", ErrorCode.ENHANCE_YOUR_CALM))

    def announce_end(self) -> None:
        """Ask the peer to open no more streams; those that are under way are still taken (section 6.8)."""
        if self._past.last_taken == MAX_31:  # a GOAWAY must not allow more than the one before
            self.sender.write(frames.goaway(MAX_31, ErrorCode.NO_ERROR, "stopping"))

    def refuse_more(self) -> None:
        """Take no further stream: what comes later the peer may try elsewhere."""
        if self._past.last_taken == MAX_31:
            self._past.last_taken = self._past.highest
            self.streams.watched = True
            self.sender.write(frames.goaway(self._past.highest, ErrorCode.NO_ERROR, "stopping"))

    def close(self, reason: str) -> None:
        """End the connection in good order: GOAWAY, and every stream that is left hears `on_reset`."""
        if not self.ended:
            self.sender.write(frames.goaway(self._past.last_seen, ErrorCode.NO_ERROR, reason))
            self.lose(reason)

    def lose(self, reason: str) -> None:
        """Hear that the connection is gone; every stream that is left hears `on_reset`."""
        self._stop_reading()
        self.streams.reset_all(ErrorCode.NO_ERROR, reason)

    def open_window(self, stream: Stream, taken: int) -> None:
        """Let the peer send more on a stream; `Stream.consume` decides when."""
        self._windows.open(stream, taken)

    # Inside

    def _fail(self, error: ProtocolError) -> None:
        if self.ended:
            return
        self.sender.write(frames.goaway(self._past.last_seen, error.code, str(error)))
        self._stop_reading()
        self.streams.reset_all(error.code, str(error))
        self._owner.on_end(error)

    def _stop_reading(self) -> None:
        self.ended = True
        self.streams.stop()
        self._reader.stop()

    # Frames

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        windows = self._windows
        windows.left -= size
        if windows.left < windows.low:
            windows.attend()
        stream = self.streams.get(stream_id)
        if stream is None or stream.got_end:
            self._on_stray_data(stream_id, stream)
            return
        stream.receive_window -= size
        if stream.receive_window < 0:
            self.streams.break_off(stream, "more data than the stream's window", ErrorCode.FLOW_CONTROL_ERROR)
            return
        if flags & PADDED:
            payload = unpad(payload)
            stream.consume(size - len(payload))
        end = bool(flags & END_STREAM)
        if not payload and not end:
            self._control.idle.spend()
        if stream.expected >= 0:
            stream.expected -= len(payload)
            if stream.expected < 0 or (end and stream.expected):
                than = "longer" if stream.expected < 0 else "shorter"
                self.streams.break_off(stream, f"the body is {than} than its content-length")
                return
        stream.got_end = end
        stream.on_data(payload, end=end)
        if end:
            self.streams.got_end(stream)

    def _on_stray_data(self, stream_id: int, stream: Stream | None) -> None:
        if stream is not None:
            self.streams.break_off(stream, "data after the end", ErrorCode.STREAM_CLOSED)
            return
        self._past.require_used(stream_id, "DATA")
        if not self._past.is_dropped(stream_id):
            self.streams.reject(stream_id, ErrorCode.STREAM_CLOSED)

    def _on_block(self, stream_id: int, block: bytes, end: bool, looped: bool) -> None:  # noqa: FBT001 - see Reader
        headers = self._decoder.decode(block)
        stream = self.streams.get(stream_id)
        if stream is None:
            stream = self._on_new(stream_id, headers, end=end, looped=looped)
            if stream is None:
                return
            stream.expected = headers.length
        elif stream.got_end:
            self.streams.break_off(stream, "headers after the end", ErrorCode.STREAM_CLOSED)
            return
        else:
            problem = later_problem(headers, client=self.client, end=end)
            if looped:
                problem = "a stream that depends on itself"
            elif end and stream.expected > 0:
                problem = problem or "the body is shorter than its content-length"
            elif not end:
                stream.expected = headers.length
            if problem:
                self.streams.break_off(stream, problem)
                return
        stream.got_end = end
        stream.on_headers(headers, end=end)
        if end:
            self.streams.got_end(stream)

    def _on_new(self, stream_id: int, headers: Headers, *, end: bool, looped: bool) -> Stream | None:
        if self.client or not stream_id & 1:
            self._on_unexpected(stream_id)
            return None
        if stream_id <= self._past.highest:
            self._on_late(stream_id)
            return None
        problem = self._check(headers) if headers.problem is None else headers.problem
        bad = looped or problem != "" or (end and headers.length > 0)
        return self.streams.accept(stream_id, headers, malformed=bad)

    def _on_unexpected(self, stream_id: int) -> None:
        self._past.require_used(stream_id, "HEADERS")
        if not self._past.is_dropped(stream_id):
            raise ProtocolError(f"HEADERS on closed stream {stream_id}", ErrorCode.STREAM_CLOSED)

    def _on_late(self, stream_id: int) -> None:
        if self._past.is_dropped(stream_id):
            self._control.idle.spend()
            return
        self._past.refuse_late(stream_id)

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002 - a frame's signature
        if len(payload) != _WORD_SIZE:
            raise ProtocolError("RST_STREAM of a wrong size", ErrorCode.FRAME_SIZE_ERROR)
        self._past.require_used(stream_id, "RST_STREAM")
        self.streams.resets.spend()
        stream = self.streams.get(stream_id)
        if stream is not None:
            code = frames.word(payload)
            self.streams.forget(stream)  # not `drop`: whoever resets a stream sends nothing more on it (section 5.1)
            stream.on_reset(
                code, f"the peer reset the stream: {name_of(code)}", refused=code == ErrorCode.REFUSED_STREAM
            )
