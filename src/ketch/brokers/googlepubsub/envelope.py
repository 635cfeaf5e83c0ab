"""How a message looks on the wire: CloudEvents' binary mode for Pub/Sub, attributes named as our headers are.

The binding is Google's (github.com/googleapis/google-cloudevents, docs/spec/pubsub.md): `ce-…` and `content-type`.
Pub/Sub takes 100 attributes, their names up to 256 bytes and not beginning with `goog`, their values up to 1,024 bytes
(cloud.google.com/pubsub/quotas#resource_limits). Headers beyond that travel as JSON in `ketch-more-0`, `ketch-more-1` …
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from google.pubsub_v1 import types

from ...errors import MessageTooLarge
from ...message import KEY, Message

if TYPE_CHECKING:
    from collections.abc import Mapping

PubsubMessage: Any = types.PubsubMessage.pb()

#: Largest body. Pub/Sub's own limit is 10 MB for a request, with its attributes and lengths.
MAX_BODY = 9_800_000

_MORE = "ketch-more-"
_MAX_NAME = 256
_MAX_VALUE = 1024
_MAX_ATTRIBUTES = 100

#: A character takes four bytes at most, so that up to this many need no counting.
_SURELY_FITS = _MAX_VALUE // 4


def wrap(message: Message) -> Any:
    """Return a message as Pub/Sub's.

    Raises:
        MessageTooLarge: its body or its headers are over Pub/Sub's limits.
    """
    if len(message.body) > MAX_BODY:
        raise MessageTooLarge(f"{len(message.body)} bytes are over Pub/Sub's limit, {MAX_BODY} for a body")
    headers = message.headers
    if len(headers) > _MAX_ATTRIBUTES - 1 or not all(_fits(name, value) for name, value in headers.items()):
        headers = _pack(headers)
    key = message.key
    return PubsubMessage(data=message.body, attributes=headers, ordering_key=_ordering_key(key) if key else "")


def unwrap(topic: str, received: Any) -> Message:
    """Return Pub/Sub's message as ours; names in lower case, and an ordering key as `ce-partitionkey`."""
    headers = {name.lower(): value for name, value in received.attributes.items()}
    if f"{_MORE}0" in headers:
        headers = _unpack(headers)
    if received.ordering_key and KEY not in headers:
        headers[KEY] = received.ordering_key
    return Message(topic, headers, received.data)


def _fits(name: str, value: str) -> bool:
    return (
        (len(value) <= _SURELY_FITS or len(value.encode()) <= _MAX_VALUE)
        and (len(name) <= _MAX_NAME // 4 or len(name.encode()) <= _MAX_NAME)
        and not name.startswith(("goog", _MORE))
        and name != ""
    )


def _pack(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with those that don't fit in chunks of JSON."""
    fitting = {name: value for name, value in headers.items() if _fits(name, value)}
    if len(fitting) > _MAX_ATTRIBUTES // 2:
        fitting = {name: value for name, value in fitting.items() if name.startswith("ce-")}
    rest = json.dumps({name: value for name, value in headers.items() if name not in fitting})  # ASCII: cut anywhere
    chunks = [rest[at : at + _MAX_VALUE] for at in range(0, len(rest), _MAX_VALUE)]
    if len(fitting) + len(chunks) > _MAX_ATTRIBUTES:
        raise MessageTooLarge(f"headers of {len(rest)} bytes are more than Pub/Sub's {_MAX_ATTRIBUTES} attributes hold")
    return fitting | {f"{_MORE}{number}": chunk for number, chunk in enumerate(chunks)}


def _unpack(headers: dict[str, str]) -> dict[str, str]:
    chunks = [headers[f"{_MORE}{number}"] for number in range(len(headers)) if f"{_MORE}{number}" in headers]
    try:
        more = json.loads("".join(chunks))
    except (ValueError, RecursionError):
        return headers  # somebody else's, whatever they mean by it
    if not isinstance(more, dict):
        return headers
    kept = {name: value for name, value in headers.items() if not name.startswith(_MORE)}
    return kept | {str(name): str(value) for name, value in more.items()}


def _ordering_key(key: str) -> str:
    # Over the limit a digest orders as well; the key itself is among the headers.
    return key if len(key.encode()) <= _MAX_VALUE else hashlib.sha256(key.encode()).hexdigest()
