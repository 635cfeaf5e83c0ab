"""NSQ's TCP protocol, version 2 (nsq.io/clients/tcp_protocol_spec.html): its bytes, without any IO.

A client sends commands: a line, some with a body whose length comes first. The server sends frames: length, kind, data.
All numbers are big-endian.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from ...errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC = b"  V2"
HEARTBEAT = b"_heartbeat_"
OK = b"OK"
CLOSE_WAIT = b"CLOSE_WAIT"
NOP = b"NOP\n"
CLS = b"CLS\n"

RESPONSE, ERROR, MESSAGE = 0, 1, 2

#: Length of a message's id.
ID_SIZE = 16

#: Largest frame taken. An nsqd's messages have up to 1 MiB unless it is told otherwise.
_MAX_FRAME = 64 * 1024 * 1024

_FRAME = struct.Struct(">Ii")
_HEAD = struct.Struct(">qH16s")
_SIZE = struct.Struct(">I")


class Received(NamedTuple):
    """A message: when nsqd took it (UNIX time in nanoseconds), which delivery of it this is, its id and its body."""

    time: int
    attempts: int
    id: bytes
    body: bytes


def with_body(line: str, body: bytes) -> bytes:
    """Return a command with a body: `PUB topic`, `DPUB topic milliseconds`, `IDENTIFY`, `AUTH`."""
    return b"%s\n%s%s" % (line.encode(), _SIZE.pack(len(body)), body)


def mpub(topic: str, bodies: Sequence[bytes]) -> bytes:
    """Return the command that publishes several messages, all or none."""
    parts = [_SIZE.pack(len(bodies))]
    for body in bodies:
        parts += (_SIZE.pack(len(body)), body)
    return with_body(f"MPUB {topic}", b"".join(parts))


def sub(topic: str, channel: str) -> bytes:
    """Return the command that makes this connection a channel's."""
    return f"SUB {topic} {channel}\n".encode()


def rdy(count: int) -> bytes:
    """Return the command that says how many messages may be unsettled at a time."""
    return b"RDY %d\n" % count


def fin(id_: bytes) -> bytes:
    """Return the command that settles a message."""
    return b"FIN %s\n" % id_


def req(id_: bytes, milliseconds: int) -> bytes:
    """Return the command that gives a message back, to come again after a while."""
    return b"REQ %s %d\n" % (id_, milliseconds)


def touch(id_: bytes) -> bytes:
    """Return the command that begins a message's timeout anew."""
    return b"TOUCH %s\n" % id_


def read_message(data: bytes) -> Received:
    """Return a frame's data as a message.

    Raises:
        BrokerError: it is too short for one.
    """
    if len(data) < _HEAD.size:
        raise BrokerError(f"nsq: a message of {len(data)} bytes is none")
    time, attempts, id_ = _HEAD.unpack_from(data)
    return Received(time, attempts, id_, data[_HEAD.size :])


class Frames:
    """Bytes as they come, cut into frames."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._wanted = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the frames that are whole now, each its kind and its data.

        Raises:
            BrokerError: a frame is too large or no frame.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return []
            data = bytes(self._rest)
        frames: list[tuple[int, bytes]] = []
        at = end = 0
        while at + _FRAME.size <= len(data):
            size, kind = _FRAME.unpack_from(data, at)
            if not 4 <= size <= _MAX_FRAME or not RESPONSE <= kind <= MESSAGE:  # noqa: PLR2004 - the kind's own length
                raise BrokerError(f"nsq: a frame of {size} bytes and kind {kind}: is this an nsqd's TCP port?")
            end = at + 4 + size
            if end > len(data):
                break
            frames.append((kind, data[at + 8 : end]))
            at = end
        self._rest = bytearray(data[at:])
        self._wanted = end - at  # what is known of the frame that isn't whole: copied once, when it is
        return frames
