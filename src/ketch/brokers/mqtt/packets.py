"""MQTT 5 packets as bytes and back (OASIS MQTT Version 5.0, chapters 2 and 3); no IO.

What a client sends is written, what a client gets is read; QoS 2 isn't used. Nothing is trusted: a packet over the size
that was agreed on, a length that leads out of it or one of a kind that no server sends ends the connection.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ...errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Iterable

CONNACK, PUBLISH, PUBACK, SUBACK, UNSUBACK, PINGRESP, DISCONNECT = 2, 3, 4, 9, 11, 13, 14

PINGREQ: Final = b"\xc0\x00"

#: Reason codes from here on are failures.
FAILURE: Final = 0x80
SESSION_TAKEN_OVER: Final = 0x8E

#: Longest string, in bytes (section 1.5.4).
MAX_STRING: Final = 0xFFFF

# Properties (section 2.2.2.2) by the type of their value.
CONTENT_TYPE, SESSION_EXPIRY, WILL_DELAY = 0x03, 0x11, 0x18
REASON_STRING, RECEIVE_MAXIMUM, MAXIMUM_QOS, USER_PROPERTY = 0x1F, 0x21, 0x24, 0x26
MAXIMUM_PACKET_SIZE, SERVER_KEEP_ALIVE, SHARED_AVAILABLE, WILDCARD_AVAILABLE = 0x27, 0x13, 0x2A, 0x28
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


class Publish:
    """An event as it came: `properties` are raw, see `read_properties`; `id` is 0 at QoS 0."""

    __slots__ = ("duplicate", "id", "payload", "properties", "topic")

    def __init__(self, topic: str, id: int, properties: bytes, payload: bytes, *, duplicate: bool) -> None:  # noqa: A002 - MQTT's word
        self.topic = topic
        self.id = id
        self.properties = properties
        self.payload = payload
        self.duplicate = duplicate


@dataclass(frozen=True, slots=True)
class Answer:
    """Any other packet: its kind, the id it answers to (0 for none), reason codes and properties."""

    kind: int
    id: int = 0
    reasons: tuple[int, ...] = (0,)
    properties: dict[int, Any] = field(default_factory=dict)
    session_present: bool = False

    @property
    def why(self) -> str:
        """The reason, for people."""
        said = self.properties.get(REASON_STRING, "")
        name = _REASONS.get(self.reasons[0], "")
        return f"{name or 'reason'} (0x{self.reasons[0]:02x})" + (f": {said[:200]}" if said else "")


_REASONS = {
    0x81: "malformed packet",
    0x82: "protocol error",
    0x84: "it doesn't speak MQTT 5",
    0x01: "it doesn't speak MQTT 5",  # the answer of MQTT 3.1.1
    0x85: "client identifier not valid",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8B: "server shutting down",
    0x8D: "keep alive timeout",
    0x8E: "session taken over",
    0x8F: "topic filter invalid",
    0x90: "topic name invalid",
    0x93: "receive maximum exceeded",
    0x95: "packet too large",
    0x97: "quota exceeded",
    0x9B: "QoS not supported",
    0x9E: "shared subscriptions not supported",
    0xA2: "wildcard subscriptions not supported",
}


# --- written


def varint(number: int) -> bytes:
    """Return a variable byte integer (section 1.5.5)."""
    if number < 0x80:  # noqa: PLR2004 - seven bits a byte
        return bytes((number,))
    out = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        out.append(low | 0x80 if number else low)
        if not number:
            return bytes(out)


def string(text: str) -> bytes:
    """Return a string with its length.

    Raises:
        BrokerError: it is too long or isn't Unicode.
    """
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise BrokerError(f"mqtt: {text[:40]!r} can't be written as UTF-8") from None
    return binary(raw)


def binary(raw: bytes) -> bytes:
    """Return bytes with their length.

    Raises:
        BrokerError: there are too many.
    """
    if len(raw) > MAX_STRING:
        raise BrokerError(f"mqtt: {raw[:40]!r}… has {len(raw)} bytes; a topic, name or value takes {MAX_STRING}")
    return len(raw).to_bytes(2, "big") + raw


def pair(name: str, value: str) -> bytes:
    """Return a user property."""
    return b"\x26" + string(name) + string(value)


def _packet(first: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes((first,)) + varint(len(body)) + body


@dataclass(frozen=True, slots=True)
class Connect:
    """What a connection begins with (section 3.1).

    Attributes:
        client_id: the session's name; "" to be given one.
        clean: whether to begin anew, should the server have this session.
        keep_alive: seconds.
        session_expiry: seconds that the server keeps the session without a connection.
        receive_maximum: events at QoS 1 that it sends ahead.
        maximum_packet_size: bytes of the largest packet it sends.
        will: topic and payload of a retained message that it publishes should we vanish, `will_delay` seconds later.
    """

    client_id: str
    clean: bool
    keep_alive: int
    session_expiry: int
    receive_maximum: int
    maximum_packet_size: int
    username: str = ""
    password: str = field(default="", repr=False)
    will: tuple[str, bytes] | None = None
    will_delay: int = 0

    def encode(self) -> bytes:
        """Return the packet."""
        properties = struct.pack(
            ">BIBHBI",
            SESSION_EXPIRY,
            self.session_expiry,
            RECEIVE_MAXIMUM,
            self.receive_maximum,
            MAXIMUM_PACKET_SIZE,
            self.maximum_packet_size,
        )
        flags = 0x02 * self.clean
        payload = [string(self.client_id)]
        if self.will is not None:
            flags |= 0x04 | 0x08 | 0x20  # a will, at QoS 1, retained
            delay = struct.pack(">BI", WILL_DELAY, self.will_delay)
            payload += [varint(len(delay)), delay, string(self.will[0]), binary(self.will[1])]
        if self.username:
            flags |= 0x80
            payload.append(string(self.username))
        if self.password:
            flags |= 0x40
            payload.append(string(self.password))
        head = struct.pack(">BBH", 5, flags, self.keep_alive)
        return _packet(0x10, string("MQTT"), head, varint(len(properties)), properties, *payload)


def publish(topic: bytes, tail: bytes, *, id: int = 0, retain: bool = False) -> bytes:  # noqa: A002 - MQTT's word
    """Return an event: at QoS 1 with an id, else at QoS 0.

    Args:
        topic: with its length, as `string` returns it.
        tail: properties with their length, and the payload.
        id: 0 for QoS 0.
        retain: whether the server is to keep it for who subscribes later.
    """
    number = id.to_bytes(2, "big") if id else b""
    size = varint(len(topic) + len(number) + len(tail))
    return b"".join((bytes((0x30 | (0x02 if id else 0) | retain,)), size, topic, number, tail))


def acknowledge(ids: Iterable[int]) -> bytes:
    """Return one PUBACK for each id."""
    return b"".join([b"\x40\x02" + id.to_bytes(2, "big") for id in ids])  # noqa: A001 - MQTT's word


def subscribe(id: int, topic_filter: str, qos: int, *, retained: bool = False) -> bytes:  # noqa: A002 - MQTT's word
    """Return a subscription to one filter; `retained` asks for what is retained already."""
    options = qos if retained else qos | 0x20
    return _packet(0x82, id.to_bytes(2, "big"), b"\x00", string(topic_filter), bytes((options,)))


def unsubscribe(id: int, topic_filter: str) -> bytes:  # noqa: A002 - MQTT's word
    """Return the end of a subscription."""
    return _packet(0xA2, id.to_bytes(2, "big"), b"\x00", string(topic_filter))


def disconnect(*, forget: bool) -> bytes:
    """Return the end of a connection; `forget` ends its session as well."""
    return b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00" if forget else b"\xe0\x00"


# --- read


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
