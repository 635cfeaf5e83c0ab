"""A message as a CloudEvent of the protobuf format 1.0, and back.

What all events of a publisher share (source, type, content type) is encoded once and kept; of the single event only
id, time and body are added, by hand, since building the message object would cost several times as much. The result is
ordinary protobuf, and decoded as such; headers are looked at when somebody asks.
"""

from __future__ import annotations

import base64
import calendar
from datetime import date, datetime
from operator import itemgetter
from typing import TYPE_CHECKING

from ...message import CONTENT_TYPE, BySharedHeaders, LazyHeaders, Message, Stamped
from .direct_pb2 import Batch, CloudEvent, CloudEventAttributeValue, Event

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Headers of an event without metadata of its publisher's: what the fast path knows.
_PLAIN = 6

# Seconds of the years 1 and 10000, the range of RFC 3339 and of google.protobuf.Timestamp, and a second in nanoseconds.
_YEAR_1 = -62_135_596_800
_YEAR_10000 = 253_402_300_800
_SECOND = 1_000_000_000

#: Publishers whose shared part is kept; one that makes types up must not fill the memory.
_SHARED = 1024

#: What all events of a publisher have in common.
_common = itemgetter("ce-source", "ce-type", "ce-specversion", CONTENT_TYPE)

_REQUIRED = ("ce-id", "ce-source", "ce-specversion", "ce-type", "ce-time", CONTENT_TYPE)

# Field numbers and wire types of direct.proto as tags: (number << 3) | type, type 2 being length-delimited.
_BATCH_EVENT = b"\x1a"  # Batch.events = 3
_EVENT_EVENT = b"\x0a"  # Event.event = 1
_ID = b"\x0a"  # CloudEvent.id = 1
_ATTRIBUTE = b"\x2a"  # CloudEvent.attributes = 5
_BINARY_DATA = b"\x32"  # CloudEvent.binary_data = 6


def varint(number: int) -> bytes:
    """Encode an unsigned integer (protobuf.dev/programming-guides/encoding, "Base 128 Varints")."""
    out = bytearray()
    while number >= _HIGH_BIT:
        out.append(number & (_HIGH_BIT - 1) | _HIGH_BIT)
        number >>= 7
    out.append(number)
    return bytes(out)


_HIGH_BIT = 0x80

#: Lengths whose encoding is remembered.
_LENGTHS = 4096


class _Varints(dict[int, bytes]):
    """Lengths as varints; the same few dozen come again and again."""

    def __missing__(self, number: int) -> bytes:
        encoded = varint(number)
        if number < _LENGTHS:
            self[number] = encoded
        return encoded


class Encoder:
    """Encodes messages as entries of `Batch.events`."""

    def __init__(self) -> None:
        self._lengths = _Varints()
        self._shared: dict[tuple[str, ...], bytes] = {}
        self._stamped = BySharedHeaders(self.block)
        self._time: tuple[str | None, bytes] = (None, b"")

    def encode(self, message: Message) -> bytes:
        """Return one message as an entry of `Batch.events`, tag and length included."""
        headers = message.headers
        if type(headers) is Stamped:
            block, id_, stamp = self._stamped[headers.shared], headers.id.encode(), headers.time
        else:
            try:
                common, id_, stamp = _common(headers), headers["ce-id"].encode(), headers["ce-time"]
            except KeyError:
                return self._encode_any(message)
            if len(headers) != _PLAIN:
                return self._encode_any(message)
            block = self._shared.get(common) or self._share(common)
        lengths, body = self._lengths, message.body
        event = b"".join(
            (
                _ID,
                lengths[len(id_)],
                id_,
                block,
                self._time[1] if stamp == self._time[0] else self._time_of(stamp),
                _BINARY_DATA,
                lengths[len(body)],
                body,
            )
        )
        inner = lengths[len(event)]
        return b"".join((_BATCH_EVENT, lengths[1 + len(inner) + len(event)], _EVENT_EVENT, inner, event))

    def block(self, shared: Mapping[str, str]) -> bytes:
        """Return what all events with these headers have in common."""
        return self._share(_common(shared))

    def _share(self, common: tuple[str, ...]) -> bytes:
        source, type_, spec_version, content_type = common
        event = CloudEvent(source=source, spec_version=spec_version, type=type_)
        event.attributes["datacontenttype"].ce_string = content_type
        shared = event.SerializeToString()
        if len(self._shared) < _SHARED:
            self._shared[common] = shared
        return shared

    def _time_of(self, text: str) -> bytes:
        # Events of one millisecond share it.
        event = CloudEvent()
        _set_time(event, text)
        self._time = (text, event.SerializeToString())
        return self._time[1]

    def _encode_any(self, message: Message) -> bytes:
        headers = message.headers
        event = Event()
        cloud = event.event
        cloud.id = headers.get("ce-id", "")
        cloud.source = headers.get("ce-source", "")
        cloud.spec_version = headers.get("ce-specversion", "")
        cloud.type = headers.get("ce-type", "")
        cloud.binary_data = message.body
        if "ce-time" in headers:
            _set_time(cloud, headers["ce-time"])
        if CONTENT_TYPE in headers:
            cloud.attributes["datacontenttype"].ce_string = headers[CONTENT_TYPE]
        for name, value in headers.items():
            if name not in _REQUIRED:
                if name.startswith("ce-"):
                    cloud.attributes[name[3:]].ce_string = value
                else:
                    event.metadata[name] = value
        encoded = event.SerializeToString()
        return _BATCH_EVENT + varint(len(encoded)) + encoded


def head(topic: str, subscriptions: Sequence[str]) -> bytes:
    """Return the beginning of a batch; entries of `Batch.events` follow it."""
    return Batch(topic=topic, subscriptions=subscriptions).SerializeToString()


def _set_time(event: CloudEvent, text: str) -> None:
    """Set `time` as a timestamp, unless it would come out as another text than the publisher's."""
    value = event.attributes["time"]
    try:
        when = datetime.fromisoformat(text)
        value.ce_timestamp.seconds = calendar.timegm(when.utctimetuple())
        value.ce_timestamp.nanos = when.microsecond * 1000
    except (ValueError, OverflowError):
        value.ce_string = text
    if _text(value) != text:
        value.ce_string = text


def _text(value: CloudEventAttributeValue) -> str:
    """Return an attribute as text, as the CloudEvents type system writes it (CloudEvents 1.0, "Type System")."""
    kind = value.WhichOneof("attr")
    if kind == "ce_timestamp":
        return _rfc3339(value.ce_timestamp.seconds, value.ce_timestamp.nanos)
    if kind == "ce_bytes":
        return base64.b64encode(value.ce_bytes).decode()
    if kind == "ce_boolean":
        return "true" if value.ce_boolean else "false"
    return "" if kind is None else str(getattr(value, kind))


def _rfc3339(seconds: int, nanos: int) -> str:
    """Return a timestamp as text, with as many digits as it needs and three at least; "" when it is none."""
    if not (_YEAR_1 <= seconds < _YEAR_10000 and 0 <= nanos < _SECOND):
        return ""
    digits = f"{nanos:09d}"
    while len(digits) > len("123") and digits.endswith("000"):
        digits = digits[:-3]
    day, second = divmod(seconds - _YEAR_1, 86_400)
    return f"{date.fromordinal(day + 1)}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}.{digits}Z"


def messages(batch: Batch) -> list[Message]:
    """Return a batch's messages."""
    topic = batch.topic
    received = []
    for event in batch.events:
        cloud = event.event
        received.append(Message(topic, _Headers(event, cloud), cloud.binary_data or cloud.text_data.encode()))
    return received


class _Headers(LazyHeaders):
    """An event's headers, made when they are asked for; a consumer asks for two of them."""

    __slots__ = ("_cloud", "_event")

    def __init__(self, event: Event, cloud: CloudEvent) -> None:
        self._event = event
        self._cloud = cloud
        self._all = None

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        if self._all is None:
            if name == "ce-type":
                return self._cloud.type or default
            if name == CONTENT_TYPE:
                said = self._cloud.attributes.get("datacontenttype")
                return default if said is None else said.ce_string or _text(said)
        return self._made().get(name, default)

    def _parse(self) -> dict[str, str]:
        # What is said twice is said by the field of its own: neither attributes nor metadata can overrule it.
        headers = {name.lower(): value for name, value in self._event.metadata.items()}
        for name in [name for name in headers if name.startswith("ce-") or name == CONTENT_TYPE]:
            del headers[name]
        return {**headers, **headers_of(self._cloud)}


def headers_of(cloud: CloudEvent) -> dict[str, str]:
    """Return an event's attributes as headers."""
    headers: dict[str, str] = {}
    for name, value in cloud.attributes.items():
        headers[CONTENT_TYPE if name == "datacontenttype" else f"ce-{name.lower()}"] = _text(value)
    required = (
        ("ce-id", cloud.id),
        ("ce-source", cloud.source),
        ("ce-specversion", cloud.spec_version),
        ("ce-type", cloud.type),
    )
    for name, text in required:
        if text:
            headers[name] = text
        else:
            headers.pop(name, None)
    return headers
