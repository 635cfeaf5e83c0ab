"""An event as destination, headers and body.

CloudEvents has no binding for STOMP. Attributes are headers named as in its HTTP binding (`ce-id` …, `content-type`),
and the publisher's metadata are headers beside them. Headers that mean something to STOMP or ActiveMQ are not events';
metadata that is called like one travels as `meta:<name>`, which no metadata can be called itself.

Destinations: ActiveMQ's virtual topics. Events go to the topic `VirtualTopic.<topic>`; a group is the queue
`Consumer.<group>.VirtualTopic.<topic>`, which ActiveMQ copies them to. What a name can't hold is written as `%XX`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from ...errors import BrokerError
from ...message import KEY, Message
from . import frames

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOPIC = "/topic/VirtualTopic."
_MARK = "VirtualTopic."
_META = "meta:"

#: ActiveMQ's message groups: events of one are for one consumer at a time.
_GROUP_ID = "JMSXGroupID"
_DELAY = "AMQ_SCHEDULED_DELAY"

#: Headers that belong to STOMP and to ActiveMQ ("Stomp extensions for message semantics"), in lower case.
_RESERVED = frozenset(
    (
        "ack",
        "browser",
        "content-length",
        "correlation-id",
        "destination",
        "expires",
        "id",
        "message",
        "message-id",
        "original-destination",
        "persistent",
        "priority",
        "receipt",
        "receipt-id",
        "redelivered",
        "reply-to",
        "scheduledjobid",
        "selector",
        "subscription",
        "timestamp",
        "transaction",
        "transformation",
        "transformation-error",
        "type",
    )
)
_RESERVED_PREFIXES = ("jms", "amq_", "amq-", "activemq.", "breadcrumbid")

#: Topics whose destination is kept.
_KNOWN = 1024


def reserved(name: str) -> bool:
    """Tell whether a header is none of an event's own."""
    lower = name.lower()
    return lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES)


def topic_destination(topic: str) -> str:
    """Return where a topic's events go.

    Raises:
        BrokerError: that can't be a topic.
    """
    return _TOPIC + _name(topic)


def queue_destination(topic: str, group: str) -> str:
    """Return where a group's events wait.

    Raises:
        BrokerError: that can't be a topic or a group.
    """
    if not group:
        raise BrokerError("stomp: a group has a name")
    return f"/queue/Consumer.{_quote(group).replace('.', '%2E')}.{_MARK}{_name(topic)}"


def topic_of(destination: str) -> str:
    """Return the topic that a destination stands for."""
    _, mark, name = destination.partition(_MARK)
    return unquote(name if mark else destination.rpartition("/")[2])


def _name(topic: str) -> str:
    if not topic or not all(topic.split(".")):
        raise BrokerError(f"stomp: {topic!r} is no topic of ActiveMQ's: it is empty, or a word between dots is")
    return _quote(topic)


def _quote(name: str) -> str:
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        raise BrokerError(f"stomp: {name[:40]!r} can't be written as UTF-8") from None


class Writer:
    """Writes events as SEND frames, less the header that asks for a receipt or names a transaction."""

    def __init__(self) -> None:
        self._starts: dict[str, bytes] = {}

    def send(self, message: Message, delay: float) -> tuple[bytes, bytes]:
        """Return what comes before and after that header.

        Raises:
            BrokerError: STOMP can't carry it.
        """
        start = self._starts.get(message.topic)
        if start is None:
            destination = frames.head({"destination": topic_destination(message.topic)})
            start = b"SEND\n" + destination + b"persistent:true\n"
            if len(self._starts) < _KNOWN:
                self._starts[message.topic] = start
        headers = _written(message.headers)
        if delay > 0:
            headers[_DELAY] = str(max(1, round(delay * 1000)))
        length = b"content-length:%d\n\n" % len(message.body)
        return start, b"".join((frames.head(headers), length, message.body, b"\0"))


def _written(headers: Mapping[str, str]) -> dict[str, str]:
    """Return an event's headers as they are sent."""
    out = {_META + name if reserved(name) else name: value for name, value in headers.items()}
    if headers.get(KEY):
        out[_GROUP_ID] = headers[KEY]
    return out


def read(frame: frames.Frame) -> Message:
    """Return the event in a MESSAGE."""
    headers: dict[str, str] = {}
    for name, value in frame.headers.items():
        if not reserved(name):
            headers.setdefault(name.removeprefix(_META).lower(), value)
    return Message(topic_of(frame.headers.get("destination", "")), headers, frame.body)
