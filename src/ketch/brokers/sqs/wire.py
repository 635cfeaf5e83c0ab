"""How a message looks at SNS and SQS: a text, and at most ten attributes.

CloudEvents has no binding for them, so this is ours. The event's own attributes and its content type are message
attributes of the same names, for filter policies and plain clients; all other headers share one, a JSON object: a
message of more than ten attributes would be dropped on its way to the queue
(docs.aws.amazon.com/sns/latest/dg/sns-message-attributes.html). A body of characters that XML allows goes as it is,
any other in base64, and an attribute says so.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, Any

from ...errors import MessageTooLarge
from ...message import CONTENT_TYPE, KEY, Message

if TYPE_CHECKING:
    from collections.abc import Mapping

    Attributes = dict[str, dict[str, str]]

#: The attribute that holds the headers which have none of their own, as a JSON object.
HEADERS = "ketch-headers"

#: The attribute that says how the body is written, if not as it is: `base64`, or `empty` (the text is a placeholder).
ENCODING = "ketch-encoding"

#: Headers that are attributes of their own.
_OWN = frozenset({"ce-id", "ce-source", "ce-specversion", "ce-type", "ce-time", KEY, CONTENT_TYPE})

# XML 1.0 section 2.2, but for the carriage return, which XML's line ends swallow (section 2.11).
_NO_TEXT = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

#: Bytes of a message that binary bodies leave to their headers.
_HEADER_ROOM = 4096


def largest_body(max_size: int) -> int:
    """Return the bytes of the largest binary body: in base64 it leaves room for its headers."""
    return (max_size - _HEADER_ROOM) * 3 // 4


def encode(message: Message, max_size: int) -> tuple[dict[str, Any], int]:
    """Return a message as an entry of SNS's PublishBatch, but for its id, and its size as AWS counts it.

    Raises:
        MessageTooLarge: it is over `max_size` bytes.
    """
    attributes = _attributes(message.headers)
    text = _text(message.body)
    size = len(message.body)
    if text is None:
        if size > largest_body(max_size):
            raise MessageTooLarge(
                f"{size} bytes are over the {largest_body(max_size)} that a binary body may have here; "
                f"in base64 they would be over the limit of {max_size}"
            )
        text, encoding = (base64.b64encode(message.body).decode(), "base64") if message.body else ("-", "empty")
        attributes[ENCODING] = _string(encoding)
        size = len(text)
    size += sum(_size(name, value["StringValue"]) for name, value in attributes.items())
    if size > max_size:
        raise MessageTooLarge(f"{size} bytes with headers are over the limit of {max_size}")
    return {"Message": text, "MessageAttributes": attributes}, size


def _text(body: bytes) -> str | None:
    """Return a body that can go as it is."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return text if text and _NO_TEXT.search(text) is None else None


def _attributes(headers: Mapping[str, str]) -> Attributes:
    attributes: Attributes = {}
    rest: dict[str, str] = {}
    for name, value in headers.items():
        if name in _OWN and value and _NO_TEXT.search(value) is None:
            attributes[name] = _string(value)
        else:
            rest[name] = value
    if rest:
        attributes[HEADERS] = _string(json.dumps(rest))
    return attributes


def _string(value: str) -> dict[str, str]:
    return {"DataType": "String", "StringValue": value}


def _size(name: str, value: str) -> int:
    return len(name) + len("String") + (len(value) if value.isascii() else len(value.encode("utf-8", "replace")))


def decode(topic: str, received: Mapping[str, Any]) -> Message:
    """Return a received message; what isn't written as ours is taken as it stands."""
    headers: dict[str, str] = {}
    encoding = ""
    for name, attribute in received.get("MessageAttributes", {}).items():
        value = _value(attribute)
        if name == ENCODING:
            encoding = value
        elif name != HEADERS or not _unpack(value, headers):
            headers[name.lower()] = value
    return Message(topic, headers, _body(received.get("Body", ""), encoding))


def _value(attribute: Mapping[str, Any]) -> str:
    binary = attribute.get("BinaryValue")
    if binary is not None:
        return base64.b64encode(binary).decode()
    return str(attribute.get("StringValue", ""))


def _unpack(packed: str, into: dict[str, str]) -> bool:
    try:
        rest = json.loads(packed)
    except (ValueError, RecursionError):
        return False
    if not isinstance(rest, dict) or not all(isinstance(value, str) for value in rest.values()):
        return False
    for name, value in rest.items():
        into[name.lower()] = value
    return True


def _body(text: str, encoding: str) -> bytes:
    if encoding == "empty":
        return b""
    if encoding == "base64":
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error:
            pass  # somebody else's message that only bears the name; it arrives as it stands
    return text.encode("utf-8", "replace")
