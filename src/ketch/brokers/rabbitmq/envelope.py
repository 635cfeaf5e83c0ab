"""Envelope: from what arrived to a delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...broker import DEAD_LETTERS, Delivery
from ...message import Message
from .content import ATTEMPT, TOPIC, AmqpHeaders, read
from .names import group_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .wire import Arrival

#: Topics that are remembered as texts.
_REMEMBERED: Final = 4096

_DEAD = DEAD_LETTERS.encode()


class Envelope:
    """Reads what arrives at one queue."""

    def __init__(self, exchange: str, topic: str) -> None:
        """Make it.

        Args:
            exchange: through which events come as they were published.
            topic: of what a plain client put into the queue itself.
        """
        self._exchange = exchange.encode()
        self._topic = topic
        self._topics: dict[bytes, str] = {}

    def open(self, arrival: Arrival, raw: object) -> Delivery:
        """Return the delivery."""
        if arrival.redelivered or arrival.exchange != self._exchange or arrival.key == _DEAD:
            return self._read(arrival, raw)
        topic = self._topics.get(arrival.key)
        if topic is None:
            topic = self._name(arrival.key)
        return Delivery(Message(topic, AmqpHeaders(arrival.properties), arrival.body), 1, raw)

    def _name(self, key: bytes) -> str:
        topic = key.decode("utf-8", "replace")
        if len(self._topics) < _REMEMBERED:
            self._topics[key] = topic
        return topic

    def _read(self, arrival: Arrival, raw: object) -> Delivery:
        """Read one that the server, or this plugin, has marked: it comes again, late, or as a dead letter."""
        _, table = read(arrival.properties)
        topic = self._name(arrival.key)
        if not arrival.exchange:  # straight into the queue
            topic = str(table.get(TOPIC, self._topic))
        headers: Mapping[str, str] = AmqpHeaders(arrival.properties)
        if table.get("x-first-death-reason") == "delivery_limit" and topic == DEAD_LETTERS:
            headers = _dead_letter(headers, table)
        delivered = table.get("x-delivery-count", 1 if arrival.redelivered else 0)
        attempt = _number(table.get(ATTEMPT), 1) + _number(delivered, 0)
        return Delivery(Message(topic, headers, arrival.body), attempt, raw)


def _number(value: object, default: int) -> int:
    """Return a header as a number; a plain client may have set anything."""
    try:
        number = int(str(value))
    except ValueError:
        return default
    return number if 0 <= number < 1_000_000 else default  # noqa: PLR2004 - beyond it nobody has counted


def _dead_letter(headers: Mapping[str, str], table: dict[str, object]) -> dict[str, str]:
    """Return the headers of a dead letter as the consumer writes them, for one that the server has put there."""
    deaths = table.get("x-death")
    death = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    keys = death.get("routing-keys")
    story = {
        "topic": str(table.get(TOPIC) or (keys[0] if isinstance(keys, list) and keys else "")),
        "group": group_of(str(table.get("x-first-death-queue", ""))),
        "reason": "it was delivered too often without being settled: does it kill its handler's process?",
        "attempts": str(_number(table.get("x-delivery-count"), 1)),
    }
    return {**dict(headers), **{f"ketch-dead-{name}": text for name, text in story.items()}}
