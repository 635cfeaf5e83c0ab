"""How an event looks in a stream: an entry whose fields are its headers, and `data`, its body.

CloudEvents has no binding for Redis; this is its binary mode as HTTP and NATS have it: attributes are `ce-id`,
`ce-source` …, `content-type` is the body's type, metadata go by their own names, and the payload stays as it is. So a
plain `XADD user.created * data '{"name": "Ada"}'` is an event, and a plain `XREAD` shows what is in one.

Metadata called `data` would be taken for the body: it goes by `:data`, which no metadata can be called.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from ...broker import Delivery
from ...message import LazyHeaders, Message

if TYPE_CHECKING:
    from collections.abc import Sequence

_BODY = b"data"
_NAMESAKE = b":data"

#: The field that our entries begin with.
_FIRST = b"ce-specversion"


class Fields(LazyHeaders):
    """An entry's fields as headers, parsed when asked for. Names are lower case; of equal ones the first counts."""

    __slots__ = ("_raw",)

    def __init__(self, raw: list[bytes]) -> None:
        self._raw = raw
        self._all = None

    def get(self, name: str, default: Any = None) -> Any:
        """Return a header's value."""
        if self._all is None and name != "data":
            raw = self._raw
            try:
                at = raw.index(name.encode())
            except ValueError:
                if raw[0] == _FIRST:  # a plain client may have written the name in capitals, we have not
                    return default
            else:
                if not at & 1:  # every second one is a name
                    return raw[at + 1].decode("utf-8", "replace")
        return self._made().get(name, default)

    def _parse(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        raw = self._raw
        for name, value in zip(raw[::2], raw[1::2], strict=False):
            if name != _BODY:
                text = "data" if name == _NAMESAKE else name.decode("utf-8", "replace").lower()
                headers.setdefault(text, value.decode("utf-8", "replace"))
        return headers


def fields(message: Message) -> list[str | bytes]:
    """Return the fields and values of a message's entry."""
    flat: list[str | bytes] = [*chain.from_iterable(message.headers.items()), _BODY, message.body]
    if "data" in message.headers:
        flat[2 * list(message.headers).index("data")] = _NAMESAKE
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
