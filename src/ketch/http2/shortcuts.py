"""Shortcuts: the frames of a small call, read in one go.

Nearly every request is HEADERS and DATA, nearly every response HEADERS, DATA and HEADERS, complete and one behind the
other, with header blocks that were seen before. What is read here is what `Connection` would make of the same frames,
one by one; whatever is unusual is left to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .frames import DATA, END_HEADERS, END_STREAM, HEAD, HEAD_SIZE, HEADERS

if TYPE_CHECKING:
    from .compression import Headers
    from .limits import Limits
    from .owner import Owner
    from .reader import OnBlock
    from .streams import Streams
    from .windows import Windows

_unpack = HEAD.unpack_from
_LAST = END_HEADERS | END_STREAM


class Shortcuts:
    """Reads whole requests, or whole responses, of one connection.

    Args:
        streams, windows: the connection's.
        blocks: header blocks that were decoded before and leave the table of header fields as it is.
        owner: makes the streams that a peer opens.
        limits: how many of them may be open, and how large frames may be.
        on_block: takes a header block the ordinary way.
    """

    def __init__(
        self,
        streams: Streams,
        windows: Windows,
        blocks: dict[bytes, Headers],
        owner: Owner,
        limits: Limits,
        on_block: OnBlock,
    ) -> None:
        self._streams = streams
        self._windows = windows
        self._blocks = blocks
        self._owner = owner
        self._max_streams = limits.max_streams
        self._max_frame = limits.max_frame
        self._largest_request = min(limits.max_frame, limits.stream_window)
        self._on_block = on_block

    def request(self, data: bytes, at: int, flags: int, stream_id: int, block: bytes) -> int:
        """Take the HEADERS that end at `at`, and the rest of the request if it is there; return where to read on."""
        headers = self._blocks.get(block)
        start = at + HEAD_SIZE
        if headers is None or flags & END_STREAM or headers.problem != "" or headers.length >= 0 or start > len(data):
            return self._ordinary(at, flags, stream_id, block)
        high, low, kind, ends, other = _unpack(data, at)
        size: int = high << 16 | low
        stop = start + size
        streams, windows = self._streams, self._windows
        past = streams.past
        if (
            kind != DATA
            or ends != END_STREAM
            or other != stream_id
            or stop > len(data)
            or stream_id != past.highest + 2
            or not stream_id & 1
            or stream_id > past.last_taken
            or size > self._largest_request
            or len(streams) >= self._max_streams
        ):
            return self._ordinary(at, flags, stream_id, block)
        windows.left -= size
        if windows.left < windows.low:
            windows.attend()
        past.highest = stream_id
        stream = streams[stream_id] = self._owner.on_stream(stream_id, headers)
        stream.receive_window -= size
        stream.on_request(headers, data[start:stop])
        if stream.sent_end and not stream.closed:
            streams.got_end(stream)
        return stop

    def response(self, data: bytes, at: int, flags: int, stream_id: int, block: bytes) -> int:
        """Take the HEADERS that end at `at`, and the rest of the response if it is there; return where to read on."""
        headers = self._blocks.get(block)
        stream = self._streams.get(stream_id)
        start = at + HEAD_SIZE
        if headers is None or stream is None or flags & END_STREAM or headers.problem != "" or start > len(data):
            return self._ordinary(at, flags, stream_id, block)
        high, low, kind, ends, other = _unpack(data, at)
        size: int = high << 16 | low
        stop = start + size
        last = stop + HEAD_SIZE
        if (
            kind != DATA
            or ends
            or other != stream_id
            or last > len(data)
            or size > stream.receive_window
            or size > self._max_frame
        ):
            return self._ordinary(at, flags, stream_id, block)
        high, low, kind, ends, other = _unpack(data, stop)
        end: int = last + low
        if kind != HEADERS or ends != _LAST or other != stream_id or high or end > len(data):
            return self._ordinary(at, flags, stream_id, block)
        trailers = self._blocks.get(data[last:end])
        if (
            trailers is None
            or trailers.trailer_problem != ""
            or stream.got_end
            or headers.length >= 0
            or not stream.on_whole(headers, data[start:stop], trailers)
        ):
            return self._ordinary(at, flags, stream_id, block)
        windows = self._windows
        windows.left -= size
        if windows.left < windows.low:
            windows.attend()
        stream.got_end = True
        self._streams.got_end(stream)
        return end

    def _ordinary(self, at: int, flags: int, stream_id: int, block: bytes) -> int:
        self._on_block(stream_id, block, flags & END_STREAM == END_STREAM, False)  # noqa: FBT003 - see OnBlock
        return at
