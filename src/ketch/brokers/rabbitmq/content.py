"""How an event looks on AMQP 0-9-1: CloudEvents' AMQP binding, binary mode, with headers for application properties.

Attributes are headers `cloudEvents:id`, `cloudEvents:type` …, the content type is the property of that name, the
publisher's own metadata are headers as they are, and the body is the payload. `cloudEvents_` is understood as well, as
the binding demands (section 3.1.3).
"""

from __future__ import annotations

import json
import logging
from datetime import datetime
from struct import Struct
from struct import error as BadSize  # noqa: N812 - an exception, named like one
from typing import TYPE_CHECKING, Final, TypeVar

from pamqp import decode

from ...errors import BrokerError
from ...message import CONTENT_TYPE, LazyHeaders

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("ketch.broker")

_K = TypeVar("_K")
_V = TypeVar("_V")

#: Our own: where an event was published that came back on its queue's name, and which delivery it is by our count.
TOPIC: Final = "x-ketch-topic"
ATTEMPT: Final = "x-ketch-attempt"

#: Headers that the server adds, and ours above; not the event's.
_SERVERS = frozenset(
    {"x-death", "x-delivery-count", "x-acquired-count", TOPIC, ATTEMPT}
    | {f"x-{which}-death-{what}" for which in ("first", "last") for what in ("exchange", "queue", "reason")}
)

#: Flags of the properties that we read or write, in the order in which they stand (basic class, section 1.8).
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 1 << 15, 1 << 14, 1 << 13, 1 << 12
_EXPIRATION = 1 << 8

_size = Struct(">I")
_flags = Struct(">H")

#: Encoded headers, names and names of headers that are remembered: those that come again, such as the source's; and how
#: long such a header may be.
_REMEMBERED: Final = 2048
_LONGEST_REMEMBERED: Final = 256
_NEVER_AGAIN = frozenset({"ce-id", "ce-time"})
_known: dict[tuple[str, str], bytes] = {}
_prefixes: dict[str, bytes] = {}
_names: dict[str, str] = {}


def encode_name(name: str) -> bytes:
    """Return a short string (section 4.2.5.3).

    Raises:
        BrokerError: it is over 255 bytes.
    """
    raw = name.encode()
    if len(raw) > 255:  # noqa: PLR2004 - the length is one byte
        raise BrokerError(f"rabbitmq: {name[:60]!r}… has {len(raw)} bytes, a name or a topic at most 255")
    return bytes((len(raw),)) + raw


def _remember(known: dict[_K, _V], key: _K, value: _V) -> _V:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[key] = value
    return value


def _pair(name: str, value: str) -> bytes:
    prefix = _prefixes.get(name)
    if prefix is None:
        wire = "cloudEvents:" + name[3:] if name.startswith("ce-") else name
        prefix = _remember(_prefixes, name, encode_name(wire) + b"S")
    raw = value.encode()
    return prefix + _size.pack(len(raw)) + raw


def _new_pair(pair: tuple[str, str]) -> bytes:
    name, value = pair
    encoded = encode_name(value) if name == CONTENT_TYPE else _pair(name, value)
    if name not in _NEVER_AGAIN and len(encoded) <= _LONGEST_REMEMBERED:
        _remember(_known, pair, encoded)
    return encoded


def encode(headers: Mapping[str, str], *, expiration: int = 0, extra: Mapping[str, str] | None = None) -> bytes:
    """Return the properties of a message, persistent.

    Args:
        headers: the event's.
        expiration: milliseconds after which it leaves its queue, 0 for never.
        extra: headers that aren't the event's.
    """
    flags = _HEADERS | _DELIVERY_MODE
    content_type = b""
    parts: list[bytes] = []
    known = _known.get
    for pair in headers.items():
        encoded = known(pair) or _new_pair(pair)
        if pair[0] == CONTENT_TYPE:
            flags |= _CONTENT_TYPE
            content_type = encoded
        else:
            parts.append(encoded)
    if extra:
        parts += (_pair(name, value) for name, value in extra.items())
    table = b"".join(parts)
    ending = b"\x02"
    if expiration:
        flags |= _EXPIRATION
        ending += encode_name(str(expiration))
    return b"".join((_flags.pack(flags), content_type, _size.pack(len(table)), table, ending))


class AmqpHeaders(LazyHeaders):
    """Headers as they came, parsed when somebody asks."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._all = None

    def _parse(self) -> dict[str, str]:
        content_type, table = read(self._raw)
        known = _names.get
        named = {
            known(name) or _name(name): value if type(value) is str else text(value)
            for name, value in table.items()
            if name not in _SERVERS
        }
        if content_type:
            named[CONTENT_TYPE] = content_type
        return named


def read(properties: bytes) -> tuple[str, dict[str, object]]:
    """Return the content type and the table of headers; neither where they can't be read."""
    try:
        (flags,) = _flags.unpack_from(properties)
        at, content_type = 2, ""
        if flags & _CONTENT_TYPE:
            length, content_type = decode.short_str(properties[at:])
            at += length
        if flags & _CONTENT_ENCODING:
            at += 1 + properties[at]
        return content_type, _table(properties, at) if flags & _HEADERS else {}
    except (ValueError, IndexError, BadSize, RecursionError) as error:
        log.warning("rabbitmq: a message's properties can't be read and are left out: %s", error)
        return "", {}


def _table(data: bytes, at: int) -> dict[str, object]:
    """Read a table (section 4.2.5.5): texts here, all else by pamqp."""
    (size,) = _size.unpack_from(data, at)
    at += 4
    end = at + size
    table: dict[str, object] = {}
    while at < end:
        key_end = at + 1 + data[at]
        key = data[at + 1 : key_end].decode()
        if data[key_end] == 0x53:  # noqa: PLR2004 - "S", a long string
            begin = key_end + 5
            at = begin + _size.unpack_from(data, key_end + 1)[0]
            table[key] = data[begin:at].decode("utf-8", "replace")
        else:
            used, table[key] = decode.embedded_value(data[key_end:end])
            at = key_end + used
    return table


def _name(name: str) -> str:
    # As written, not in lower case: metadata may begin with "cloudevents_", the binding's prefix has a capital.
    attribute = name.startswith(("cloudEvents:", "cloudEvents_"))
    return _remember(_names, name, "ce-" + name[12:].lower() if attribute else name.lower())


def text(value: object) -> str:
    """Return a header's value as CloudEvents writes it as text (section 2.4 of its core); tables as JSON."""
    match value:
        case None:
            told = ""
        case bool():
            told = "true" if value else "false"
        case bytes() | bytearray():
            told = value.decode("utf-8", "replace")
        case datetime():
            told = value.isoformat().replace("+00:00", "Z")
        case dict() | list():
            told = json.dumps(value, default=text)
        case _:
            told = str(value)
    return told
