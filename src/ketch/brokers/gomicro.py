"""A message as go-micro's brokers without headers of their own carry it: NATS, HTTP.

The JSON is `{"Header":{…},"Body":"<base64>"}`, as its Go struct is written: keys capitalised, header keys sorted, no
spaces, `<`, `>` and `&` escaped.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from ..codec import PROTOBUF
from ..message import CONTENT_TYPE, Message

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


def unwrap(topic: str, data: bytes) -> Message | None:
    """Return what go-micro's JSON holds; None where it is something else."""
    if not data.startswith(b"{"):
        return None
    try:
        envelope = _decode(data)
        body = base64.b64decode(envelope.Body or "", validate=True)
    except (msgspec.DecodeError, binascii.Error):
        return None
    if envelope.Header is None and envelope.Body is None:
        return None
    named = {_FROM_GO.get(name.lower(), name.lower()): value for name, value in (envelope.Header or {}).items()}
    named.pop("", None)
    if named.get(CONTENT_TYPE) in _PROTOBUF and "ce-specversion" not in named:  # ours mean what they say
        named[CONTENT_TYPE] = PROTOBUF
    return Message(topic, named, body)
