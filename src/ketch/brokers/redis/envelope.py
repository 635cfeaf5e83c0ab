"""How an event looks on a channel.

Redis's messages have no headers, and CloudEvents has no binding for them. So an event is CloudEvents 1.0 in its JSON
format (github.com/cloudevents/spec, formats/json-format.md), one object: any CloudEvents library reads and writes it.
A JSON payload stands in `data` as it is, any other in `data_base64`. The publisher's metadata, whose names CloudEvents
would not allow as attributes, are one attribute, `ketchmetadata`, written as a URL's query is.

What isn't such an object is the payload of an event without headers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

import msgspec

from ...message import CONTENT_TYPE, KEY, Message

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Metadata of one event; it comes from whoever can publish.
_MAX_METADATA = 256


_NO_DATA = msgspec.Raw()


class _Event(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    specversion: str
    id: str | None = None
    source: str | None = None
    type: str | None = None
    time: str | None = None
    datacontenttype: str | None = None
    partitionkey: str | None = None
    ketchmetadata: str = ""
    data_base64: bytes | None = None
    data: msgspec.Raw = _NO_DATA  # not `| None`: a union with it is read as None only


_HEADERS = (
    ("ce-specversion", "specversion"),
    ("ce-source", "source"),
    ("ce-type", "type"),
    (CONTENT_TYPE, "datacontenttype"),
    ("ce-id", "id"),
    ("ce-time", "time"),
    (KEY, "partitionkey"),
)
_ATTRIBUTES = dict(_HEADERS)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Event).decode
_decode_any = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_validate = msgspec.json.Decoder(msgspec.Raw).decode
_scalar = msgspec.json.Decoder(str | int | float | bool | None).decode
_text = msgspec.json.Decoder(str).decode


def is_json(content_type: str) -> bool:
    """Tell whether a media type is JSON's or built upon it; none at all means JSON, as CloudEvents has it."""
    bare = content_type.partition(";")[0].strip().lower()
    return not bare or bare.endswith(("/json", "+json"))


def wrap(message: Message) -> bytes:
    """Return what is published for a message."""
    headers, body = message.headers, message.body
    if not headers and body[:1] != b"{":
        return body
    # What is missing must not come back as something: only an event has a version.
    event = _Event(specversion="")
    metadata = {}
    for name, value in headers.items():
        attribute = _ATTRIBUTES.get(name)
        if attribute is None:
            metadata[name] = value
        else:
            setattr(event, attribute, value)
    if metadata:
        event.ketchmetadata = urlencode(metadata)
    if event.datacontenttype and is_json(event.datacontenttype) and _stands_alone(body):
        event.data = msgspec.Raw(body)
    else:
        event.data_base64 = body
    return _encode(event)


def _stands_alone(body: bytes) -> bool:
    """Tell whether a body is JSON that another document can hold as it is, byte for byte."""
    try:
        # A validated copy without the white space around it: that would be lost.
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return body.strip() == body


def unwrap(topic: str, payload: bytes) -> Message:
    """Return the message that a payload is."""
    if payload[:1] == b"{":
        try:
            return _message(topic, _decode(payload))
        except msgspec.DecodeError:
            foreign = _foreign(topic, payload)
            if foreign is not None:
                return foreign
    return Message(topic, {}, payload)


def _message(topic: str, event: _Event) -> Message:
    headers = {name: value for name, attribute in _HEADERS if (value := getattr(event, attribute)) is not None}
    if not event.specversion:
        del headers["ce-specversion"]
    if event.ketchmetadata:
        headers.update(parse_qsl(event.ketchmetadata, keep_blank_values=True, max_num_fields=_MAX_METADATA))
    return Message(topic, headers, _body(event.data_base64, event.data, event.datacontenttype or ""))


def _foreign(topic: str, payload: bytes) -> Message | None:
    """Return an event with attributes that we don't write, None for what is no CloudEvents object."""
    try:
        members = _decode_any(payload)
        known: dict[str, Any] = {name: members.pop(name) for name in _Event.__struct_fields__ if name in members}
        event = _decode(_encode(known))
    except (msgspec.DecodeError, ValueError):
        return None
    message = _message(topic, event)
    return Message(topic, {**message.headers, **_extensions(members)}, message.body)


def _extensions(members: Mapping[str, msgspec.Raw]) -> dict[str, str]:
    found = {}
    for name, raw in members.items():
        try:
            value = _scalar(raw)
        except msgspec.DecodeError:
            continue  # objects and arrays are no attributes
        if value is not None:
            found[f"ce-{name.lower()}"] = value if isinstance(value, str) else bytes(raw).decode()
    return found


def _body(base64: bytes | None, data: msgspec.Raw, content_type: str) -> bytes:
    if base64 is not None:
        return base64
    raw = bytes(data)
    # Text of a type that isn't JSON is that text (section 3.1.2 of the JSON format).
    return _text(raw).encode() if raw[:1] == b'"' and not is_json(content_type) else raw
