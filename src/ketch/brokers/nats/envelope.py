"""How a message looks on NATS.

`cloudevents`: CloudEvents 1.0, NATS protocol binding, binary mode: attributes and metadata as NATS headers, the
payload as it is. A plain client reads and writes it.

`go-micro`: the JSON of go-micro's NATS broker. With it set, native messages are understood too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...message import Message
from .. import gomicro

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Return a message as go-micro's JSON.
wrap = gomicro.wrap


def unwrap(topic: str, headers: Mapping[str, str] | None, data: bytes) -> Message:
    """Return what go-micro's JSON holds; anything else is taken as a native message."""
    found = None if headers else gomicro.unwrap(topic, data)
    return native(topic, headers, data) if found is None else found


def native(topic: str, headers: Mapping[str, str] | None, data: bytes) -> Message:
    """Return a message of NATS headers and payload."""
    return Message(topic, {} if headers is None else headers, data)
