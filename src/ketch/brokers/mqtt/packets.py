"""MQTT 5 packets (OASIS MQTT Version 5.0, chapters 2 and 3): what a server sends, and what a client sends as bytes.

No IO. QoS 2 isn't used.
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
