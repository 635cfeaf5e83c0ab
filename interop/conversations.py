"""Conversations for `fuzz.py`: valid frames of either side of gRPC, and what spoils them.

All by chance, and for each seed the same.
"""

from __future__ import annotations

import gzip
import struct
from typing import TYPE_CHECKING

from hpack import Encoder

from ketch.http2 import frames
from ketch.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

#: Numbers at which things change.
EDGES = (0, 1, 2, 4, 5, 8, 9, 16_384, 16_385, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1)


class Conversation:
    """The frames that one side says, one item each; the preface is the first of a client's.

    Messages are small where `large` is 0, else some have that many bytes.
    """

    def __init__(self, chance: random.Random, *, client: bool, streams: int, large: int = 0) -> None:
        self._chance = chance
        self._large = large
        self._client = client
        self._encoder = Encoder()
        settings = [(code, value) for code, value in ((1, 0), (3, 100), (4, 70_000), (99, 1)) if chance.random() < 0.3]
        self.frames = [frames.settings(settings)]
        self._say(streams)
        if client:
            self.frames.insert(0, PREFACE)

    def _say(self, streams: int) -> None:
        make = self._request if self._client else self._response
        waiting = [make(2 * number + 1) for number in range(streams)]
        begun: list[list[bytes]] = []
        eager = self._chance.random() < 0.5  # one behind the other, as most are
        while waiting or begun:
            if waiting and (not begun or self._chance.random() < 0.5):  # streams begin in order
                begun.append(waiting.pop(0))
            part = begun[0] if eager else self._chance.choice(begun)
            self.frames.append(part.pop(0))
            if not part:
                begun.remove(part)
            if self._chance.random() < 0.15:
                self.frames.append(self._aside())

    def _request(self, stream_id: int) -> list[bytes]:
        chance = self._chance
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", chance.choice(["/t/Echo", "/t/Echo", "/t/Chat", "/t/Wait", "/t/Nothing"])),
            ("content-type", chance.choice(["application/grpc", "application/grpc+proto", "text/html"])),
            ("te", "trailers"),
        ]
        extra = [("grpc-timeout", "1S"), ("grpc-encoding", "gzip"), ("x-bin", "AAEC"), ("x-id", str(stream_id))]
        fields += [pair for pair in extra if chance.random() < 0.3]
        if chance.random() < 0.1:
            fields.append(("content-length", str(chance.choice([0, 5, 10, 2**40]))))
        return self._headers(stream_id, fields, end=False) + self._body(stream_id, end=chance.random() < 0.9)

    def _response(self, stream_id: int) -> list[bytes]:
        chance = self._chance
        status = chance.choice(["200"] * 6 + ["100", "404"])
        fields = [(":status", status), ("content-type", "application/grpc")]
        fields += [pair for pair in [("grpc-encoding", "gzip"), ("x-a", "b")] if chance.random() < 0.3]
        last = [("grpc-status", chance.choice(["0", "0", "5", "99", "x"])), ("grpc-message", "why%20not")]
        if chance.random() < 0.2:
            return self._headers(stream_id, [*fields, *last], end=True)
        return [
            *self._headers(stream_id, fields, end=False),
            *self._body(stream_id, end=False),
            *self._headers(stream_id, last, end=True),
        ]

    def _headers(self, stream_id: int, fields: list[tuple[str, str]], *, end: bool) -> list[bytes]:
        chance = self._chance
        block = self._encoder.encode(fields, huffman=chance.random() < 0.5)
        flags = END_STREAM if end else 0
        pieces = [block]
        if chance.random() < 0.2:
            at = chance.randrange(len(block) + 1)
            pieces = [block[:at], block[at:]]
        first = pieces[0]
        if chance.random() < 0.1:
            flags, first = flags | HAS_PRIORITY, struct.pack(">IB", 0, 16) + first
        if chance.random() < 0.1:
            flags, first = flags | PADDED, b"\3" + first + bytes(3)
        if len(pieces) == 1:
            return [frame(HEADERS, flags | END_HEADERS, stream_id, first)]
        # One item: other frames must not come between.
        return [frame(HEADERS, flags, stream_id, first) + frame(CONTINUATION, END_HEADERS, stream_id, pieces[1])]

    def _body(self, stream_id: int, *, end: bool) -> list[bytes]:
        chance = self._chance
        body = b""
        for _ in range(chance.choice([0, 1, 1, 1, 2, 5])):
            message, flag = bytes(chance.choice([0, 5, 100, 3000, 3000, self._large])), 0
            if chance.random() < 0.1:
                message, flag = gzip.compress(message, mtime=0), 1
            body += bytes((flag,)) + len(message).to_bytes(4) + message
        cuts = sorted(chance.randrange(len(body) + 1) for _ in range(chance.choice([0, 0, 0, 1, 3])))
        pieces = [body[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        out = []
        for piece in pieces:
            flags, payload = 0, piece
            if chance.random() < 0.1:
                flags, payload = PADDED, b"\7" + piece + bytes(7)
            out.append((flags, payload))
        ends = [0] * (len(out) - 1) + [END_STREAM if end else 0]
        return [frame(DATA, flags | last, stream_id, payload) for (flags, payload), last in zip(out, ends, strict=True)]

    def _aside(self) -> bytes:
        chance = self._chance
        stream_id = chance.choice([0, 1, 3, 5, 7])
        return chance.choice(
            [
                frame(PING, chance.choice([0, ACK]), 0, b"ketchbdp"),
                frame(WINDOW_UPDATE, 0, stream_id, struct.pack(">I", chance.choice([1, 1000, 100_000]))),
                frame(PRIORITY, 0, 9, struct.pack(">IB", 0, 1)),
                frame(RST_STREAM, 0, stream_id, struct.pack(">I", chance.choice([0, 2, 7, 8, 99]))),
                frame(99, 0xFF, stream_id, b"new"),
                frames.settings([(4, chance.choice([0, 10, 65_535, 1_000_000]))]),
                frame(SETTINGS, ACK, 0),
                frame(GOAWAY, 0, 0, struct.pack(">II", chance.choice([0, 1, 3, 2**31 - 1]), 0) + b"bye"),
            ]
        )


def spoil(parts: list[bytes], chance: random.Random) -> list[bytes]:
    """Return the frames of a conversation with some of them changed."""
    parts = list(parts)
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3, 8])):
        at = chance.randrange(len(parts))
        chance.choice(_WAYS)(parts, at, chance)
        if not parts:
            break
    return parts


def _drop(parts: list[bytes], at: int, _: random.Random) -> None:
    del parts[at]


def _repeat(parts: list[bytes], at: int, chance: random.Random) -> None:
    parts[at:at] = [parts[at]] * chance.choice([1, 1, 2, 50, 1500])


def _move(parts: list[bytes], at: int, chance: random.Random) -> None:
    parts.insert(chance.randrange(len(parts)), parts.pop(at))


def _flip(parts: list[bytes], at: int, chance: random.Random) -> None:
    part = bytearray(parts[at])
    if part:
        part[chance.randrange(min(len(part), chance.choice([9, 40, 5000])))] ^= 1 << chance.randrange(8)
    parts[at] = bytes(part)


def _cut_short(parts: list[bytes], at: int, chance: random.Random) -> None:
    parts[at] = parts[at][: chance.randrange(len(parts[at]) + 1)]


def _insert(parts: list[bytes], at: int, chance: random.Random) -> None:
    payload = b"".join(struct.pack(">I", chance.choice(EDGES)) for _ in range(chance.choice([0, 1, 2, 3])))
    stream_id = chance.choice([0, 1, 2, 3, 5, 9, 2**31 - 1])
    parts.insert(at, frame(chance.randrange(12), chance.choice([0, 1, 4, 5, 8, 0x2D, 255]), stream_id, payload))


def _head(parts: list[bytes], at: int, chance: random.Random) -> None:
    """Change a field of a frame's head; its length is what it is, or also a lie."""
    part = parts[at]
    if len(part) < 9:
        return
    high, low, kind, flags, stream_id = frames.HEAD.unpack_from(part)
    match chance.randrange(4):
        case 0:
            high, low = divmod(chance.choice(EDGES) % 2**24, 2**16)
        case 1:
            kind = chance.randrange(12)
        case 2:
            flags ^= 1 << chance.randrange(8)
        case _:
            stream_id = chance.choice([0, 1, 2, 3, 5, 101, 2**31 - 1, 2**32 - 1])
    parts[at] = frames.HEAD.pack(high, low, kind, flags, stream_id) + part[9:]


def _noise(parts: list[bytes], at: int, chance: random.Random) -> None:
    parts.insert(at, chance.randbytes(chance.choice([1, 9, 100])))


_WAYS: list[Callable[[list[bytes], int, random.Random], None]] = [
    _drop,
    _repeat,
    _move,
    _flip,
    _flip,
    _cut_short,
    _insert,
    _insert,
    _head,
    _head,
    _noise,
]


def cut(data: bytes, chance: random.Random) -> list[bytes]:
    """Return the bytes in pieces, as a network may deliver them."""
    size = chance.choice([1, 7, 60, 1000, 100_000])
    out, at = [], 0
    if size == 1 and len(data) > 5000:
        size = 60
    while at < len(data):
        step = chance.randint(1, size)
        out.append(data[at : at + step])
        at += step
    return out
