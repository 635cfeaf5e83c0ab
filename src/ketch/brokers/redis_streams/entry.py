"""How an event looks in a stream: an entry whose fields are its headers, and `data`, its body.

CloudEvents has no binding for Redis; this is its binary mode as HTTP and NATS have it: attributes are `ce-id`,
`ce-source` …, `content-type` is the body's type, metadata go by their own names, and the payload stays as it is. So a
plain `XADD user.created * data '{"name": "Ada"}'` is an event, and a plain `XREAD` shows what is in one.

Metadata called `data` would be taken for the body: it gets an underscore in front, as do `_data`, `__data` …
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...broker import Delivery
from ...message import LazyHeaders, Message

if TYPE_CHECKING:
    from collections.abc import Sequence

_DATA = "data"
_BODY = b"data"


class Fields(LazyHeaders):
    """An entry's fields as headers, parsed when asked for. Names are lower case; of equal ones the first counts."""

    __slots__ = ("_raw",)

    def __init__(self, raw: list[bytes]) -> None:
        self._raw = raw
        self._all = None

    def get(self, name: str, default: Any = None) -> Any:
        """Return a header's value."""
        if self._all is None:
            # Every second one is a name; a value that looks like one is told by its place.
            raw = self._raw
            try:
                at = raw.index(name.encode())
            except ValueError:
                return self._made().get(name, default) if name.startswith("_") else self._other(name, default)
            if not at & 1 and name.lstrip("_") != _DATA:
                return raw[at + 1].decode("utf-8", "replace")
        return self._made().get(name, default)

    def _other(self, name: str, default: Any) -> Any:
        """Answer for a header that isn't there under this very name: a plain client may have written it in capitals."""
        raw = self._raw
        if any(field != field.lower() for field in raw[::2]):
            return self._made().get(name, default)
        return default

    def _parse(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        raw = self._raw
        for name, value in zip(raw[::2], raw[1::2], strict=False):
            if name == _BODY:
                continue
            text = name.decode("utf-8", "replace").lower()
            headers.setdefault(text[1:] if _escaped(text) else text, value.decode("utf-8", "replace"))
        return headers


def _escaped(name: str) -> bool:
    return name.startswith("_") and name.lstrip("_") == _DATA


def fields(message: Message) -> list[str | bytes]:
    """Return the fields and values of a message's entry."""
    flat: list[str | bytes] = []
    for name, value in message.headers.items():
        flat.append(name if name.lstrip("_") != _DATA else f"_{name}")
        flat.append(value)
    flat.append(_DATA)
    flat.append(message.body)
    return flat


def delivery(topic: str, entry_id: bytes, raw: list[bytes], attempt: int = 1) -> Delivery:
    """Return an entry as a delivery."""
    return Delivery(Message(topic, Fields(raw), _body(raw)), attempt, entry_id)


def _body(raw: Sequence[bytes]) -> bytes:
    if raw[-2] == _BODY:  # as we write it
        return raw[-1]
    for at in range(0, len(raw) - 1, 2):
        if raw[at] == _BODY:
            return raw[at + 1]
    return b""
