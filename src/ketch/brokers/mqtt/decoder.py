"""What a server sends, read: bytes as MQTT 5 packets (OASIS MQTT Version 5.0, chapters 2 and 3); no IO.

Nothing is trusted: a packet over the size that was agreed on, a length that leads out of it or one of a kind that no
server sends ends the connection.
"""

from __future__ import annotations

import struct
from typing import Any

from ...errors import BrokerError
from .packets import (
    CONNACK,
    DISCONNECT,
    FAILURE,
    PINGRESP,
    PUBACK,
    PUBLISH,
    SUBACK,
    UNSUBACK,
    USER_PROPERTY,
    Answer,
    Publish,
)

_SIZES = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4),
}
_STRINGS = frozenset((0x03, 0x08, 0x12, 0x15, 0x1A, 0x1C, 0x1F))
_BINARY = frozenset((0x09, 0x16))
_VARINT = 0x0B

#: User properties that are read of one packet.
_MAX_PAIRS = 1024


class Decoder:
    """Turns the bytes of a connection into packets."""

    def __init__(self, max_packet: int) -> None:
        self._max = max_packet
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 2

    def feed(self, data: bytes) -> list[Publish | Answer]:
        """Take bytes, cut anywhere, and return the packets that are complete.

        Raises:
            BrokerError: that is not what a server may send.
        """
        self._have += len(data)
        if self._have < self._need:
            self._chunks.append(data)
            return []
        if self._chunks:
            self._chunks.append(data)
            data = b"".join(self._chunks)
        packets: list[Publish | Answer] = []
        try:
            at = self._read(data, packets)
        except (IndexError, struct.error, UnicodeDecodeError) as error:
            raise BrokerError("mqtt: the server sent a malformed packet") from error
        rest = data[at:]
        self._chunks = [rest] if rest else []
        self._have = len(rest)
        return packets

    def _read(self, data: bytes, packets: list[Publish | Answer]) -> int:
        at, end = 0, len(data)
        while end - at >= 2:  # noqa: PLR2004 - the shortest packet
            size, begin = _varint(data, at + 1, end)
            if begin == 0:
                break
            if size > self._max:
                raise BrokerError(f"mqtt: the server sent a packet of {size} bytes, agreed were {self._max}")
            after = begin + size
            if after > end:
                self._need = after - at
                return at
            first = data[at]
            kind = first >> 4
            packets.append(_event(first, data, begin, after) if kind == PUBLISH else _answer(kind, data[begin:after]))
            at = after
        self._need = 2 if end - at < 2 else end - at + 1  # noqa: PLR2004 - as above
        return at


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return a variable byte integer and where it ends; (0, 0) when that hasn't come yet."""
    number = shift = 0
    for position in range(at, min(at + 4, end)):
        byte = data[position]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last one
            return number, position + 1
        shift += 7
    if end - at >= 4:  # noqa: PLR2004 - its longest form
        raise BrokerError("mqtt: the server sent a length of more than four bytes")
    return 0, 0


def _event(first: int, data: bytes, at: int, end: int) -> Publish:
    topic_end = at + 2 + (data[at] << 8 | data[at + 1])
    topic = data[at + 2 : topic_end].decode()
    at, number = topic_end, 0
    qos = first >> 1 & 3
    if qos == 1:
        number = data[at] << 8 | data[at + 1]
        at += 2
    size, at = _varint(data, at, end)
    if qos > 1 or at == 0 or at + size > end or (qos and not number):
        raise BrokerError("mqtt: the server sent an event that isn't as we subscribed")
    return Publish(topic, number, data[at : at + size], data[at + size : end], duplicate=bool(first & 0x08))


def _answer(kind: int, body: bytes) -> Answer:
    if kind == CONNACK:
        return Answer(kind, 0, (body[1],), _sized(body, 2)[0], session_present=bool(body[0] & 1))
    if kind == PUBACK:
        return Answer(kind, int.from_bytes(_exactly(body[:2]), "big"), (body[2] if len(body) > 2 else 0,))  # noqa: PLR2004 - section 3.4.2.1
    if kind in (SUBACK, UNSUBACK):
        properties, at = _sized(body, 2)
        return Answer(kind, int.from_bytes(body[:2], "big"), tuple(body[at:]) or (FAILURE,), properties)
    if kind == DISCONNECT:
        return Answer(kind, 0, (body[0] if body else 0,), _sized(body, 1)[0])
    if kind == PINGRESP:
        return Answer(kind)
    raise BrokerError(f"mqtt: the server sent a packet of kind {kind}, which none sends to a client")


def _exactly(raw: bytes) -> bytes:
    if len(raw) < 2:  # noqa: PLR2004 - an id
        raise IndexError
    return raw


def _sized(body: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Return properties that begin with their length, and where they end; they may be left out."""
    if len(body) <= at:
        return {}, at
    size, begin = _varint(body, at, len(body))
    if begin == 0 or begin + size > len(body):
        raise IndexError
    return read_properties(body[begin : begin + size]), begin + size


def read_properties(raw: bytes) -> dict[int, Any]:
    """Return properties by their id; those of users as a list of pairs.

    Raises:
        IndexError: one leads out of the packet.
        BrokerError: one isn't known, or there are too many.
    """
    properties: dict[int, Any] = {}
    at, end = 0, len(raw)
    while at < end:
        id = raw[at]  # noqa: A001 - MQTT's word
        at += 1
        if id == USER_PROPERTY:
            name, at = _text(raw, at)
            value, at = _text(raw, at)
            pairs = properties.setdefault(id, [])
            pairs.append((name, value))
            if len(pairs) > _MAX_PAIRS:
                raise BrokerError(f"mqtt: a packet has more than {_MAX_PAIRS} user properties")
        elif id in _SIZES:
            properties[id] = int.from_bytes(raw[at : at + _SIZES[id]], "big")
            at += _SIZES[id]
        elif id in _STRINGS:
            properties[id], at = _text(raw, at)
        elif id in _BINARY:
            at += 2 + (raw[at] << 8 | raw[at + 1])
        elif id == _VARINT:
            properties[id], at = _varint(raw, at, end)
        else:
            raise BrokerError(f"mqtt: a packet has a property that MQTT 5 doesn't know: {id}")
    if at > end:
        raise IndexError
    return properties


def _text(raw: bytes, at: int) -> tuple[str, int]:
    end = at + 2 + (raw[at] << 8 | raw[at + 1])
    if end > len(raw):
        raise IndexError
    return raw[at + 2 : end].decode("utf-8", "replace"), end
