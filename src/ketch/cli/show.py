"""An event for people, or as one line of JSON."""

from __future__ import annotations

import base64
import json
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..codec import JSON, PROTOBUF
from ..errors import ConfigurationError
from .output import safe

if TYPE_CHECKING:
    from ..message import Message

#: Bytes of a body that is neither JSON nor protobuf, shown in hexadecimal.
_EXCERPT = 64

#: How deep, and how many fields of, an unknown protobuf message are looked at.
_DEPTH = 8
_FIELDS = 200


class Show:
    """Turns messages into text; nothing in them can steer a terminal."""

    def __init__(self, type_: str, *, as_json: bool) -> None:
        self._message_class = _load(type_) if type_ else None
        self._as_json = as_json

    def __call__(self, message: Message) -> str:
        """Return the text of one message."""
        payload = self._payload(message)
        if self._as_json:
            record = {"topic": message.topic, "headers": dict(message.headers), "body": payload}
            return json.dumps(record, ensure_ascii=True)
        said = [message.time, message.id, message.type, f"from {message.source}" if message.source else ""]
        head = " ".join(safe(part) for part in (message.topic, *said) if part)
        extra = "".join(f"\n  {safe(name)}: {safe(value)}" for name, value in message.metadata.items())
        text = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
        return f"{head}{extra}\n  {safe(text)}"

    def _payload(self, message: Message) -> Any:
        body, content_type = message.body, message.content_type
        if JSON in content_type or (not content_type and body.startswith(b"{")):
            try:
                return json.loads(body)
            except (ValueError, RecursionError):
                return _excerpt(body)
        if self._message_class is not None:
            return self._decoded(body)
        if content_type in ("", PROTOBUF):
            return _fields(body) or _excerpt(body)
        return _excerpt(body)

    def _decoded(self, body: bytes) -> Any:
        from google.protobuf import json_format  # noqa: PLC0415 - only where protobuf is shown
        from google.protobuf.message import DecodeError  # noqa: PLC0415

        assert self._message_class is not None  # noqa: S101 - asked for by the only caller
        try:
            return json_format.MessageToDict(self._message_class.FromString(body))
        except DecodeError:
            return _excerpt(body)


def _load(name: str) -> Any:
    module, colon, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(import_module(module), attribute) if colon else None
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"--type {name}: {error}") from error
    if not hasattr(found, "FromString"):
        raise ConfigurationError(f"--type {name} is no MODULE:CLASS of a protobuf message")
    return found


def _fields(body: bytes) -> dict[str, Any] | None:
    """Return an unknown message's fields by number; None for what is no protobuf."""
    from google.protobuf.empty_pb2 import Empty  # noqa: PLC0415 - only where protobuf is shown
    from google.protobuf.message import DecodeError  # noqa: PLC0415
    from google.protobuf.unknown_fields import UnknownFieldSet  # noqa: PLC0415

    try:
        return _walk(UnknownFieldSet(Empty.FromString(body)), 0)
    except DecodeError:
        return None


def _walk(fields: Any, depth: int) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for field in list(fields)[:_FIELDS]:
        value = _value(field.data, depth)
        name = str(field.field_number)
        if name in shown:
            before = shown[name]
            shown[name] = [*before, value] if isinstance(before, list) else [before, value]
        else:
            shown[name] = value
    return shown


def _value(data: Any, depth: int) -> Any:
    if not isinstance(data, bytes):
        return data if isinstance(data, int) else _walk(data, depth + 1) if depth < _DEPTH else "…"
    try:
        return data.decode()
    except UnicodeDecodeError:
        return (_fields(data) if depth < _DEPTH else None) or base64.b64encode(data).decode()


def _excerpt(body: bytes) -> str:
    more = " …" if len(body) > _EXCERPT else ""
    return f"{len(body)} bytes: {body[:_EXCERPT].hex(' ')}{more}"
