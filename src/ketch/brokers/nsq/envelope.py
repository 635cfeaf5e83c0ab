"""How an event looks as a message's body: CloudEvents' JSON format, structured mode. NSQ has no headers.

A body of JSON is the document's `data` as it is, byte for byte; any other is `data_base64` (CloudEvents JSON event
format 1.0.2, section 3.1). Headers that are no CloudEvents attributes are the extension `ketchheaders`, a JSON object
in a string. What is no such document is a plain client's bare body, and comes through without headers.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from typing import Any

import msgspec

from ...errors import MessageTooLarge
from ...message import CONTENT_TYPE, SPEC_VERSION, Message

#: Largest message that an nsqd takes, unless it is told otherwise (`--max-msg-size`).
MAX_MESSAGE = 1024 * 1024

#: Largest body: what is left of it for a body in base64, with 16 KiB of headers.
MAX_BODY = (MAX_MESSAGE - 16 * 1024) * 3 // 4

_HEADERS = "ketchheaders"
_BEGIN = b'{"specversion":"'
_ID = b',"id":'
_DATA = b',"data_base64":"'

#: Headers of an event without metadata of its publisher's.
_PLAIN = 6

#: What the events of one publisher share: as it is written, by source, type and content type; and as it was read.
_shared: dict[tuple[str, str, str], bytes] = {}
_known: dict[bytes, dict[str, str]] = {}
_MOST_SHARED = 1024
_LONGEST_SHARED = 1024

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_document = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_strings = msgspec.json.Decoder(dict[str, str]).decode
_string = msgspec.json.Decoder(str).decode
_binary = msgspec.json.Decoder(bytes).decode


def wrap(message: Message) -> bytes:
    """Return an event as a document.

    Raises:
        MessageTooLarge: its body is over the limit, or it is with its headers.
    """
    body = message.body
    if len(body) > MAX_BODY:
        raise MessageTooLarge(f"{len(body)} bytes are over NSQ's limit, {MAX_BODY} for a body")
    wrapped = _wrap_plain(message) or _wrap_any(message)
    if len(wrapped) > MAX_MESSAGE:
        raise MessageTooLarge(f"{len(wrapped)} bytes with headers are over NSQ's limit of {MAX_MESSAGE}")
    return wrapped


def _wrap_plain(message: Message) -> bytes:
    """Return the document of an event without metadata or JSON, b"" for others; what events share is written once."""
    headers = message.headers
    try:
        key = (headers["ce-source"], headers["ce-type"], headers[CONTENT_TYPE])
        if len(headers) != _PLAIN or headers["ce-specversion"] != SPEC_VERSION:
            return b""
        id_, time = _encode(headers["ce-id"]), _encode(headers["ce-time"])
    except KeyError:
        return b""
    shared = _shared.get(key)
    if shared is None:
        source, type_, content_type = map(_encode, key)
        begin = b'%s1.0","source":%s,"type":%s,"datacontenttype":%s' % (_BEGIN, source, type_, content_type)
        shared = b"" if _is_json(key[2]) else begin
        if len(_shared) < _MOST_SHARED:
            _shared[key] = shared
    if not shared:
        return b""
    return b"".join((shared, _ID, id_, b',"time":', time, _DATA, b2a_base64(message.body, newline=False), b'"}'))


def _wrap_any(message: Message) -> bytes:
    body = message.body
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
    return _encode(document)


#: Names of the format itself: an extension called so travels with the other headers.
_TAKEN = frozenset({"ce-data", "ce-data_base64", "ce-datacontenttype", f"ce-{_HEADERS}"})


def _is_attribute(name: str) -> bool:
    return name.startswith("ce-") and name[3:].isalnum() and name.isascii() and name not in _TAKEN


def unwrap(topic: str, data: bytes) -> Message:
    """Return a message's body as an event."""
    if data.startswith(_BEGIN) and data.endswith(b'"}') and (message := _unwrap_plain(topic, data)):
        return message
    if not (data.startswith(_BEGIN) or (data[:1] in b"{ \t\r\n" and b'"specversion"' in data)):
        return Message(topic, {}, data)
    try:
        document = _document(data)
        if "specversion" in document:
            return _read(topic, document)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass  # no document, so a bare body
    return Message(topic, {}, data)


def _unwrap_plain(topic: str, data: bytes) -> Message | None:
    """Return an event whose document begins as one before; None for others.

    Within a JSON string a quotation mark has a backslash before it: so what is looked for is a member, and one of an
    inner object, or followed by others, is given away by quotation marks in its base64.
    """
    head, found, base64 = data[:-2].rpartition(_DATA)
    shared, with_id, own = head.partition(_ID)
    if not (found and with_id):
        return None
    try:
        headers = _known.get(shared)
        if headers is None:
            headers = _known_from(shared)
        headers = headers.copy()
        for name, value in _strings(b"%s%s}" % (b'{"id":', own)).items():
            _put(headers, name, value)
        return Message(topic, headers, a2b_base64(base64, strict_mode=True))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _known_from(shared: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in _strings(shared + b"}").items():
        _put(headers, name, value)
    if len(_known) < _MOST_SHARED and len(shared) < _LONGEST_SHARED:
        _known[shared] = headers
    return headers


def _put(headers: dict[str, str], name: str, value: str) -> None:
    if name == "datacontenttype":
        headers[CONTENT_TYPE] = value
    elif name == _HEADERS:
        headers |= _strings(value)
    elif name in ("data", "data_base64"):
        raise ValueError(name)  # a second body: the slow way decides
    else:
        headers[f"ce-{name.lower()}"] = value


def _read(topic: str, document: dict[str, Any]) -> Message:
    body = b""
    headers: dict[str, str] = {}
    for name, raw in document.items():
        if name == "data_base64":
            body = _binary(raw)
        elif name == "data":
            body = _text(raw, document)
        elif name == "datacontenttype":
            headers[CONTENT_TYPE] = _string(raw)
        elif name == _HEADERS:
            headers |= _strings(_string(raw))
        elif (value := _decode(raw)) is not None:
            headers[f"ce-{name.lower()}"] = value if isinstance(value, str) else bytes(raw).decode()
    return Message(topic, headers, body)


def _text(raw: msgspec.Raw, document: dict[str, Any]) -> bytes:
    """Return a `data` member as the body: as it stands if it is JSON, else the text that it is."""
    kind = document.get("datacontenttype")
    if kind is None or _is_json(_string(kind)):
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
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
