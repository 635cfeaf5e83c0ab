"""How a message looks on NATS.

`cloudevents`: CloudEvents 1.0, NATS protocol binding, binary mode: attributes and metadata as NATS headers, the
payload as it is. A plain client reads and writes it.

`go-micro`: the JSON of go-micro's NATS broker, `{"Header":{…},"Body":"<base64>"}`, as its Go struct is written: keys
capitalised, header keys sorted, no spaces, `<`, `>` and `&` escaped. With it set, native messages are understood too.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import msgspec

from ...codec import PROTOBUF
from ...message import CONTENT_TYPE, Message

if TYPE_CHECKING:
    from collections.abc import Mapping

#: go-micro's names for ours. Ids were `Micro-Id` up to its 4.9 and are `Micro-ID` since; both are written.
_TO_GO = {CONTENT_TYPE: "Content-Type"}
_FROM_GO = {"micro-id": "ce-id", "micro-topic": "", "content-type": CONTENT_TYPE}
#: Content types that its gRPC client has for protobuf besides those that everybody knows (client/grpc/codec.go).
_PROTOBUF = frozenset(("application/grpc", "application/octet-stream"))


class _Envelope(msgspec.Struct):
    Header: dict[str, str] | None = None
    Body: str | None = None


_decode = msgspec.json.Decoder(_Envelope).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def wrap(message: Message) -> bytes:
    """Return a message as go-micro's JSON."""
    header = {_TO_GO.get(name, name): value for name, value in message.headers.items()}
    header["Micro-Topic"] = message.topic
    if message.id:
        header["Micro-Id"] = header["Micro-ID"] = message.id
    text = b'{"Header":' + _encode(header) + b',"Body":"' + base64.b64encode(message.body) + b'"}'
    return text.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")


def unwrap(topic: str, headers: Mapping[str, str] | None, data: bytes) -> Message:
    """Return what go-micro's JSON holds; anything else is taken as a native message."""
    if headers or not data.startswith(b"{"):
        return native(topic, headers, data)
    try:
        envelope = _decode(data)
        body = base64.b64decode(envelope.Body or "", validate=True)
    except (msgspec.DecodeError, binascii.Error):
        return native(topic, headers, data)
    if envelope.Header is None and envelope.Body is None:
        return native(topic, headers, data)
    named = {_FROM_GO.get(name.lower(), name.lower()): value for name, value in (envelope.Header or {}).items()}
    named.pop("", None)
    if named.get(CONTENT_TYPE) in _PROTOBUF:
        named[CONTENT_TYPE] = PROTOBUF
    return Message(topic, named, body)


def native(topic: str, headers: Mapping[str, str] | None, data: bytes) -> Message:
    """Return a message of NATS headers and payload."""
    return Message(topic, {} if headers is None else headers, data)
