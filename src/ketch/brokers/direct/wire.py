"""A message as a CloudEvent of the protobuf format 1.0, and back.

What all events of a publisher share (source, type, content type) is encoded once and kept; of the single event only
id, time and body are added, by hand, since building the message object would cost several times as much. The result is
ordinary protobuf, and decoded as such; headers are looked at when somebody asks.
"""

from __future__ import annotations

import base64
import calendar
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ...message import CONTENT_TYPE, SPEC_VERSION, Message
from .direct_pb2 import Batch, CloudEvent, CloudEventAttributeValue, Event

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Headers of an event without metadata of its publisher's: what the fast path knows.
_PLAIN = 6

#: Publishers whose shared part is kept; one that makes types up must not fill the memory.
_SHARED = 1024

_REQUIRED = ("ce-id", "ce-source", "ce-specversion", "ce-type", "ce-time", CONTENT_TYPE)

# Field numbers and wire types of direct.proto as tags: (number << 3) | type, type 2 being length-delimited.
_BATCH_EVENT = b"\x1a"  # Batch.events = 3
_EVENT_EVENT = b"\x0a"  # Event.event = 1
_ID = b"\x0a"  # CloudEvent.id = 1
_ATTRIBUTE = b"\x2a"  # CloudEvent.attributes = 5
_BINARY_DATA = b"\x32"  # CloudEvent.binary_data = 6


def varint(number: int) -> bytes:
    """Encode an unsigned integer (protobuf.dev/programming-guides/encoding, "Base 128 Varints")."""
    if number < _HIGH_BIT:
        return _SMALL[number]
    out = bytearray()
    while number >= _HIGH_BIT:
        out.append(number & (_HIGH_BIT - 1) | _HIGH_BIT)
        number >>= 7
    out.append(number)
    return bytes(out)


_HIGH_BIT = 0x80
_SMALL = [bytes((number,)) for number in range(_HIGH_BIT)]


class Encoder:
    """Encodes messages as entries of `Batch.events`."""

    def __init__(self) -> None:
        self._shared: dict[tuple[str, str, str], bytes] = {}
        self._time = ("", b"")

    def encode(self, message: Message) -> bytes:
        """Return one message as an entry of `Batch.events`, tag and length included."""
        headers = message.headers
        try:
            key = (headers["ce-source"], headers["ce-type"], headers[CONTENT_TYPE])
            plain = len(headers) == _PLAIN and headers["ce-specversion"] == SPEC_VERSION
        except KeyError:
            plain = False
        if not plain:
            return self._encode_any(message)
        shared = self._shared.get(key) or self._share(key)
        id_ = headers["ce-id"].encode()
        body = message.body
        event = b"".join(
            (
                _ID,
                varint(len(id_)),
                id_,
                shared,
                self._time_of(headers["ce-time"]),
                _BINARY_DATA,
                varint(len(body)),
                body,
            )
        )
        inner = varint(len(event))
        return b"".join((_BATCH_EVENT, varint(1 + len(inner) + len(event)), _EVENT_EVENT, inner, event))

    def _share(self, key: tuple[str, str, str]) -> bytes:
        source, type_, content_type = key
        event = CloudEvent(source=source, spec_version=SPEC_VERSION, type=type_)
        event.attributes["datacontenttype"].ce_string = content_type
        shared = event.SerializeToString()
        if len(self._shared) < _SHARED:
            self._shared[key] = shared
        return shared

    def _time_of(self, text: str) -> bytes:
        # Events of one millisecond share it.
        if text != self._time[0]:
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
        value.ce_timestamp.seconds = calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
        value.ce_timestamp.nanos = int(text[20:23]) * 1_000_000
    except ValueError:
        value.ce_string = text
    if _text(value) != text:
        value.ce_string = text


def _text(value: CloudEventAttributeValue) -> str:
    """Return an attribute as text, as the CloudEvents type system writes it (CloudEvents 1.0, "Type System")."""
    kind = value.WhichOneof("attr")
    if kind == "ce_timestamp":
        stamp = value.ce_timestamp
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(stamp.seconds))
        return f"{text}.{stamp.nanos // 1_000_000:03d}Z"
    if kind == "ce_bytes":
        return base64.b64encode(value.ce_bytes).decode()
    if kind == "ce_boolean":
        return "true" if value.ce_boolean else "false"
    return "" if kind is None else str(getattr(value, kind))


def messages(batch: Batch) -> list[Message]:
    """Return a batch's messages."""
    topic = batch.topic
    return [Message(topic, _Headers(event), _body(event.event)) for event in batch.events]


def _body(event: CloudEvent) -> bytes:
    return event.binary_data or event.text_data.encode()


class _Headers(Mapping[str, str]):
    """An event's headers, made when they are asked for; a consumer asks for two of them."""

    __slots__ = ("_all", "_event")

    def __init__(self, event: Event) -> None:
        self._event = event
        self._all: dict[str, str] | None = None

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        if self._all is None:
            if name == CONTENT_TYPE:
                attributes = self._event.event.attributes
                return attributes["datacontenttype"].ce_string if "datacontenttype" in attributes else default
            if name == "ce-type":
                return self._event.event.type or default
        return self._made().get(name, default)

    def _made(self) -> dict[str, str]:
        if self._all is None:
            self._all = _headers(self._event)
        return self._all

    def __getitem__(self, name: str) -> str:
        return self._made()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made())

    def __len__(self) -> int:
        return len(self._made())


def _headers(event: Event) -> dict[str, str]:
    cloud = event.event
    required = (
        ("ce-id", cloud.id),
        ("ce-source", cloud.source),
        ("ce-specversion", cloud.spec_version),
        ("ce-type", cloud.type),
    )
    headers = {name: value for name, value in required if value}
    for name, value in cloud.attributes.items():
        headers[CONTENT_TYPE if name == "datacontenttype" else f"ce-{name}"] = _text(value)
    headers.update(event.metadata)
    return headers
