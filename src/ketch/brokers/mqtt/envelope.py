"""An event as topic, properties and payload: the CloudEvents MQTT binding, binary mode (cloudevents.io, section 3.1).

Attributes are user properties of their bare names, and `datacontenttype` is MQTT's own content type. The publisher's
metadata are user properties as well. Two rules keep the two apart, both ways:

- metadata that is called like an attribute travels as `meta:<name>`, which no metadata can be called itself;
- attributes that are none of CloudEvents' own are listed in the property `ketch:extensions`.

Topics: what is a dot in ketch is a slash in MQTT, and the other way round, so that no two collide.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ...errors import BrokerError
from ...message import CONTENT_TYPE, SPEC_VERSION, LazyHeaders
from ...pattern import is_pattern
from . import packets
from .decoder import read_properties

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...message import Message

#: CloudEvents' own attributes (specification, section 3.1), and the one extension that is ketch's business.
_KNOWN = frozenset(("specversion", "id", "source", "type", "time", "subject", "dataschema", "partitionkey"))

_EXTENSIONS = "ketch:extensions"
_META = "meta:"

#: What MQTT strings may or should not hold (section 1.5.4); servers close the connection for it.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")

_SWAP = str.maketrans("./", "/.")

#: What tells events apart comes last; the block before it is shared by a publisher's events.
_OWN = b"\x26\x00\x02id"

#: Publishers whose shared headers are kept; one that makes types up must not fill the memory.
_SHARED = 1024

#: Headers of an event without metadata of its publisher's.
_PLAIN = 6


def mqtt_topic(topic: str) -> str:
    """Return a topic as MQTT has it.

    Raises:
        BrokerError: MQTT can't have it.
    """
    swapped = topic.translate(_SWAP)
    if not swapped or "+" in swapped or "#" in swapped or _UNFIT.search(swapped):
        raise BrokerError(f"mqtt: {topic!r} is no topic of MQTT's: empty, or with '+', '#' or a control character")
    return swapped


def ketch_topic(topic: str) -> str:
    """Return a topic of MQTT's as ketch has it."""
    return topic.translate(_SWAP)


def topic_filter(topic: str) -> str:
    """Return the filter for a topic or a pattern; a pattern's matches a little more, see `ketch.pattern`.

    Raises:
        BrokerError: MQTT can't have it.
    """
    if not is_pattern(topic):
        return mqtt_topic(topic)
    words = topic.split(".")
    tail = words.pop() if words[-1] == ">" else None
    levels = ["+" if word == "*" else mqtt_topic(word) for word in words]
    return "/".join([*levels, "#"] if tail else levels)


def share_name(group: str) -> str:
    """Return a group's name without what a share name can't hold (section 4.8.2), and no two alike.

    Raises:
        BrokerError: it is empty or holds a control character.
    """
    if not group or _UNFIT.search(group):
        raise BrokerError(f"mqtt: {group!r} can't be a group: it is empty or holds a control character")
    return re.sub("[%/+#]", lambda found: f"%{ord(found[0]):02X}", group)


class Writer:
    """Writes events; what their publisher's events share is formatted once."""

    def __init__(self) -> None:
        self._shared: dict[tuple[str, str, str], bytes] = {}
        self._topics: dict[str, bytes] = {}

    def topic(self, topic: str) -> bytes:
        """Return a topic as it is written."""
        known = self._topics.get(topic)
        if known is None:
            known = packets.string(mqtt_topic(topic))
            if len(self._topics) < _SHARED:
                self._topics[topic] = known
        return known

    def tail(self, message: Message) -> bytes:
        """Return properties and payload.

        Raises:
            BrokerError: MQTT can't carry a header.
        """
        properties = self._plain(message.headers) or _any(message.headers)
        return b"".join((packets.varint(len(properties)), properties, message.body))

    def _plain(self, headers: Mapping[str, str]) -> bytes:
        """Return the properties of an event without metadata; b"" where it isn't one."""
        if len(headers) != _PLAIN:
            return b""
        try:
            key = (headers["ce-source"], headers["ce-type"], headers[CONTENT_TYPE])
            if headers["ce-specversion"] != SPEC_VERSION:
                return b""
            id, time = headers["ce-id"], headers["ce-time"]  # noqa: A001 - CloudEvents' word
        except KeyError:
            return b""
        if not (id.isalnum() and time.isprintable()):
            return b""
        shared = self._shared.get(key)
        if shared is None:
            names = ("ce-specversion", "ce-source", "ce-type", CONTENT_TYPE)
            shared = _any({name: headers[name] for name in names})
            if len(self._shared) < _SHARED:
                self._shared[key] = shared
        return b"".join((shared, _OWN, packets.string(id), b"\x26\x00\x04time", packets.string(time)))


def _any(headers: Mapping[str, str]) -> bytes:
    attributes = {name[3:] for name in headers if name.startswith("ce-")}
    extensions = " ".join(sorted(attributes - _KNOWN))
    taken = _KNOWN | attributes
    parts: list[bytes] = []
    own: list[bytes] = []
    for name, value in headers.items():
        if _UNFIT.search(name) or _UNFIT.search(value):
            raise BrokerError(f"mqtt: header {name!r} holds a control character, which MQTT can't carry")
        if name == CONTENT_TYPE:
            parts.append(b"\x03" + packets.string(value))
        elif name in ("ce-id", "ce-time"):
            own.append(packets.pair(name[3:], value))
        elif name.startswith("ce-"):
            parts.append(packets.pair(name[3:], value))
        else:
            parts.append(packets.pair(_META + name if name in taken else name, value))
    if extensions:
        parts.append(packets.pair(_EXTENSIONS, extensions))
    return b"".join([*parts, *own])


class Headers(LazyHeaders):
    """Headers as they came, read when they are asked for. Names are lower case; of two equal names the first counts.

    Properties that can't be read are no headers: servers refuse them, so none comes.
    """

    __slots__ = ("_raw",)

    _known: dict[bytes, dict[str, str]] = {}  # noqa: RUF012 - one cache for all

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._all = None

    def get(self, name: str, default: Any = None) -> Any:
        """Return a header's value."""
        if self._all is None:
            shared, found, _ = self._raw.partition(_OWN)
            if found:
                known = self._known.get(shared)
                if known is None:
                    known = read_headers(shared)
                    if len(self._known) < _SHARED:
                        self._known[shared] = known
                if name in known:
                    return known[name]
        return self._made().get(name, default)

    def _parse(self) -> dict[str, str]:
        return read_headers(self._raw)


def read_headers(raw: bytes) -> dict[str, str]:
    """Return the headers that an event's properties stand for."""
    headers: dict[str, str] = {}
    try:
        properties = read_properties(raw)
    except (IndexError, BrokerError):
        return headers
    if packets.CONTENT_TYPE in properties:
        headers[CONTENT_TYPE] = properties[packets.CONTENT_TYPE]
    pairs = properties.get(packets.USER_PROPERTY, [])
    listed = next((value for name, value in pairs if name == _EXTENSIONS), "")
    attributes = _KNOWN.union(listed.split()) if listed else _KNOWN
    for name, value in pairs:
        if name in attributes:
            headers.setdefault(f"ce-{name}", value)
        elif name != _EXTENSIONS:
            headers.setdefault(name.removeprefix(_META).lower(), value)
    return headers
