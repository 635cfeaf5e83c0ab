"""Frames of AMQP 0-9-1 as bytes, without IO. Sections are the specification's.

Per message only four methods travel: publish, deliver, ack and nack. They are written and read here; all others by
pamqp, which would take longer over one message than the server does.
"""

from __future__ import annotations

from struct import Struct
from struct import error as BadSize  # noqa: N812 - an exception, named like one
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from pamqp import frame as pamqp_frame
from pamqp.base import Frame
from pamqp.exceptions import AMQPFrameError, PAMQPException

from .content import encode_name

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What a client says first (4.2.2).
GREETING: Final = b"AMQP\x00\x00\x09\x01"

#: A heartbeat (4.2.7).
HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"

#: Bytes of a frame that aren't its payload (4.2.3): type, channel, size; the end.
OVERHEAD: Final = 8

#: Bytes of the largest body that is taken: as much as a server can be set to let through.
MAX_BODY: Final = 512 * 1024 * 1024

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_END = 0xCE
_DELIVER, _ACK, _NACK = b"\x00\x3c\x00\x3c", b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78"

_frame = Struct(">BHI")
_content = Struct(">HHQ")
_settling = Struct(">BHIIQBB")
_tag_and_bits = Struct(">QB")
_ACK_ID, _NACK_ID = 0x003C0050, 0x003C0078


class Arrival(NamedTuple):
    """A message as it was delivered."""

    tag: int
    redelivered: bool
    exchange: bytes
    key: bytes
    properties: bytes
    body: bytes


class Receiver(Protocol):
    """Who is told what came."""

    def on_method(self, channel: int, method: Frame) -> None:
        """Take any other method."""

    def on_confirm(self, channel: int, tag: int, multiple: bool, taken: bool) -> None:  # noqa: FBT001 - the frame's bits
        """Take a publisher confirm."""

    def on_arrivals(self, channel: int, arrivals: list[Arrival]) -> None:
        """Take deliveries."""


class _Partial:
    """A delivery whose content isn't complete."""

    __slots__ = ("method", "missing", "parts", "properties")

    def __init__(self, method: bytes) -> None:
        self.method = method
        self.properties: bytes | None = None
        self.missing = 0
        self.parts: list[bytes] = []


class Reader:
    """Takes bytes as they come, tells the receiver what they were; deliveries in batches.

    Raises:
        AMQPFrameError: it is no AMQP, or more than was agreed on; the connection can't go on.
    """

    def __init__(self, receiver: Receiver) -> None:
        self.frame_max = 4096  # until another is agreed on (4.2.3: frame-min-size)
        self._receiver = receiver
        self._rest = b""
        self._partial: dict[int, _Partial] = {}
        self._batches: dict[int, list[Arrival]] = {}

    def feed(self, data: bytes) -> None:
        """Take bytes."""
        data = self._rest + data if self._rest else data
        at, size = 0, len(data)
        unpack = _frame.unpack_from
        while size - at >= OVERHEAD:
            kind, channel, length = unpack(data, at)
            if length > self.frame_max:
                raise AMQPFrameError(f"a frame of {length} bytes came, {self.frame_max} were agreed on")
            begin = at + 7
            end = begin + length
            if end >= size:
                break
            if data[end] != _END:
                raise AMQPFrameError("what came is no AMQP 0-9-1")
            self._take(kind, channel, data, begin, end)
            at = end + 1
        self._rest = data[at:]
        if self._batches:
            self._hand_over()

    def _take(self, kind: int, channel: int, data: bytes, begin: int, end: int) -> None:
        if kind == _METHOD:
            method = data[begin : begin + 4]
            if method == _DELIVER:
                if channel in self._partial:
                    raise AMQPFrameError("a delivery came before the content of another")
                self._partial[channel] = _Partial(data[begin:end])
            elif method in (_ACK, _NACK):
                if end - begin != 4 + _tag_and_bits.size:
                    raise AMQPFrameError("a confirm came that can't be read")
                tag, bits = _tag_and_bits.unpack_from(data, begin + 4)
                self._receiver.on_confirm(channel, tag, bool(bits & 1), method == _ACK)
            else:
                self._other(channel, data[begin - 7 : end + 1])
        elif kind == _BODY:
            self._body(channel, data[begin:end])
        elif kind == _HEADER:
            self._header(channel, data, begin, end)
        elif kind != _HEARTBEAT:
            raise AMQPFrameError(f"a frame of unknown type {kind} came")

    def _other(self, channel: int, data: bytes) -> None:
        # What was delivered before, say, a cancel-ok is to be seen before it.
        self._hand_over()
        try:
            _, _, method = pamqp_frame.unmarshal(data)
        except (PAMQPException, ValueError) as error:
            raise AMQPFrameError(f"a method came that can't be read: {error}") from error
        if isinstance(method, Frame):
            if method.name in ("Channel.Close", "Channel.CloseOk"):
                self._partial.pop(channel, None)
            self._receiver.on_method(channel, method)

    def _header(self, channel: int, data: bytes, begin: int, end: int) -> None:
        partial = self._partial.get(channel)
        if partial is None or partial.properties is not None or end - begin < _content.size:
            raise AMQPFrameError("a content header came out of turn")
        _, _, size = _content.unpack_from(data, begin)
        if size > MAX_BODY:
            raise AMQPFrameError(f"a body of {size} bytes is announced, {MAX_BODY} is the most")
        partial.missing = size
        partial.properties = data[begin + _content.size : end]
        if not size:
            self._complete(channel, partial, b"")

    def _body(self, channel: int, part: bytes) -> None:
        partial = self._partial.get(channel)
        if partial is None or partial.properties is None or len(part) > partial.missing:
            raise AMQPFrameError("a content body came out of turn")
        partial.missing -= len(part)
        if partial.parts or partial.missing:
            partial.parts.append(part)
            if partial.missing:
                return
            part = b"".join(partial.parts)
        self._complete(channel, partial, part)

    def _complete(self, channel: int, partial: _Partial, body: bytes) -> None:
        del self._partial[channel]
        method = partial.method
        try:
            at = 5 + method[4]  # behind the consumer's tag
            tag, bits = _tag_and_bits.unpack_from(method, at)
            exchange_end = at + 10 + method[at + 9]
            key_end = exchange_end + 1 + method[exchange_end]
        except (IndexError, BadSize) as error:
            raise AMQPFrameError("a delivery came that can't be read") from error
        exchange, key = method[at + 10 : exchange_end], method[exchange_end + 1 : key_end]
        arrival = Arrival(tag, bool(bits & 1), exchange, key, partial.properties or b"", body)
        batch = self._batches.get(channel)
        if batch is None:
            self._batches[channel] = [arrival]
        else:
            batch.append(arrival)

    def _hand_over(self) -> None:
        batches, self._batches = self._batches, {}
        for channel, batch in batches.items():
            self._receiver.on_arrivals(channel, batch)


def marshal(channel: int, methods: Iterable[Frame]) -> bytes:
    """Return methods as frames, one behind the other."""
    return b"".join(pamqp_frame.marshal(method, channel) for method in methods)


def ack(channel: int, tag: int, *, multiple: bool = False) -> bytes:
    """Return basic.ack of a delivery, or of all up to it."""
    return _settling.pack(_METHOD, channel, 13, _ACK_ID, tag, multiple, _END)


def requeue(channel: int, tag: int) -> bytes:
    """Return basic.nack of a delivery that is to come again."""
    return _settling.pack(_METHOD, channel, 13, _NACK_ID, tag, 0b10, _END)


def publish_method(channel: int, exchange: str, key: str) -> bytes:
    """Return the frame of basic.publish, neither mandatory nor immediate."""
    payload = b"\x00\x3c\x00\x28\x00\x00" + encode_name(exchange) + encode_name(key) + b"\x00"
    return _frame.pack(_METHOD, channel, len(payload)) + payload + b"\xce"


def content(channel: int, properties: bytes, body: bytes, frame_max: int) -> list[bytes]:
    """Return the frames of a message's properties and body (4.2.6)."""
    size = len(body)
    frames = [
        _frame.pack(_HEADER, channel, _content.size + len(properties)),
        _content.pack(60, 0, size),
        properties,
        b"\xce",
    ]
    room = frame_max - OVERHEAD
    if 0 < size <= room:
        frames += (_frame.pack(_BODY, channel, size), body, b"\xce")
    else:
        for at in range(0, size, room):
            part = body[at : at + room]
            frames += (_frame.pack(_BODY, channel, len(part)), part, b"\xce")
    return frames
