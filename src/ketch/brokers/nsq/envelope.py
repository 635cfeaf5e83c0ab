"""How an event looks as a message's body: CloudEvents' JSON format, structured mode. NSQ has no headers.

A body of JSON is the document's `data` as it is, byte for byte; any other is `data_base64` (CloudEvents JSON event
format 1.0.2, section 3.1). Headers that are no CloudEvents attributes are the extension `ketchheaders`, a JSON object
in a string. What is no such document is a plain client's bare body, and comes through without headers.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...errors import MessageTooLarge
from ...message import CONTENT_TYPE, Message

#: Largest message that an nsqd takes, unless it is told otherwise (`--max-msg-size`).
MAX_MESSAGE = 1024 * 1024

#: Largest body: what is left of it for a body in base64, with 16 KiB of headers.
MAX_BODY = (MAX_MESSAGE - 16 * 1024) * 3 // 4

_HEADERS = "ketchheaders"
_BEGIN = b'{"specversion":"'
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_document = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_headers = msgspec.json.Decoder(dict[str, str]).decode
_binary = msgspec.json.Decoder(bytes).decode


def wrap(message: Message) -> bytes:
    """Return an event as a document.

    Raises:
        MessageTooLarge: its body is over the limit, or it is with its headers.
    """
    body = message.body
    if len(body) > MAX_BODY:
        raise MessageTooLarge(f"{len(body)} bytes are over NSQ's limit, {MAX_BODY} for a body")
    document: dict[str, Any] = {"specversion": message.headers.get("ce-specversion", "1.0")}
    others: dict[str, str] = {}
    for name, value in message.headers.items():
        if name == CONTENT_TYPE:
            document["datacontenttype"] = value
        elif _is_attribute(name):
            document[name[3:]] = value
        else:
            others[name] = value
    if others:
        document[_HEADERS] = _encode(others).decode()
    if _is_json(message.content_type) and _is_whole(body):
        document["data"] = msgspec.Raw(body)
    else:
        document["data_base64"] = body
    wrapped = _encode(document)
    if len(wrapped) > MAX_MESSAGE:
        raise MessageTooLarge(f"{len(wrapped)} bytes with headers are over NSQ's limit of {MAX_MESSAGE}")
    return wrapped


#: Names of the format itself: an extension called so travels with the other headers.
_TAKEN = frozenset({"ce-data", "ce-data_base64", "ce-datacontenttype", f"ce-{_HEADERS}"})


def _is_attribute(name: str) -> bool:
    return name.startswith("ce-") and name[3:].isalnum() and name.isascii() and name not in _TAKEN


def unwrap(topic: str, data: bytes) -> Message:
    """Return a message's body as an event."""
    if not (data.startswith(_BEGIN) or (data[:1] in b"{ \t\r\n" and b'"specversion"' in data)):
        return Message(topic, {}, data)
    try:
        document = _document(data)
        if "specversion" in document:
            return _read(topic, document)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass  # no document, so a bare body
    return Message(topic, {}, data)


def _read(topic: str, document: dict[str, Any]) -> Message:
    body = b""
    headers: dict[str, str] = {}
    for name, raw in document.items():
        if name == "data_base64":
            body = _binary(raw)
        elif name == "data":
            body = _text(raw, document)
        elif name == "datacontenttype":
            headers[CONTENT_TYPE] = _decode(raw)
        elif name == _HEADERS:
            headers |= _headers(_decode(raw))
        elif (value := _decode(raw)) is not None:
            headers[f"ce-{name}"] = value if isinstance(value, str) else bytes(raw).decode()
    return Message(topic, headers, body)


def _text(raw: msgspec.Raw, document: dict[str, Any]) -> bytes:
    """Return a `data` member as the body: as it stands if it is JSON, else the text that it is."""
    kind = document.get("datacontenttype")
    if kind is None or _is_json(_decode(kind)):
        return bytes(raw)
    value = _decode(raw)
    return value.encode() if isinstance(value, str) else bytes(raw)


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().endswith(("/json", "+json"))


def _is_whole(body: bytes) -> bool:
    """Tell whether a body is one JSON value without white space around it, which would be lost."""
    if body[:1].isspace() or body[-1:].isspace():
        return False
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
        body.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return True
