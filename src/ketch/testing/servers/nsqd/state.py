"""State: all topics; written down at the end and read at the beginning."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

from .channel import Stored, Topic

if TYPE_CHECKING:
    from pathlib import Path


class State:
    """All topics, by name."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}

    def topic(self, name: str) -> Topic:
        """Return a topic, made if there is none."""
        if name not in self.topics:
            self.topics[name] = Topic(name)
        return self.topics[name]

    def load(self, file: Path) -> None:
        """Take up what was written down."""
        if not file.exists():
            return
        for name, content in json.loads(file.read_text()).items():
            topic = self.topic(name)
            for channel_name, messages in content["channels"].items():
                channel = topic.channel(channel_name)
                for message in messages:
                    _put(topic, channel_name, message)
                channel.deal()
            topic.waiting = [(_message(message), 0.0) for message in content["waiting"]]

    def save(self, file: Path) -> None:
        """Write down all that waits, is in flight or comes later; ephemeral channels are forgotten."""
        content = {
            topic.name: {
                "channels": {
                    channel.name: [
                        *(_record(m) for m in (*channel.in_flight.values(), *channel.waiting)),
                        *(_record(m, m.due - asyncio.get_running_loop().time()) for m in channel.later.values()),
                    ]
                    for channel in topic.channels.values()
                    if not channel.ephemeral
                },
                "waiting": [_record(message) for message, _ in topic.waiting],
            }
            for topic in self.topics.values()
        }
        file.write_text(json.dumps(content))


def _record(message: Stored, later: float = 0.0) -> list[object]:
    return [message.id.decode(), message.timestamp, message.attempts, base64.b64encode(message.body).decode(), later]


def _message(record: list[object]) -> Stored:
    id_, timestamp, attempts, body, _ = record
    return Stored(base64.b64decode(str(body)), str(id_).encode(), int(str(timestamp)), int(str(attempts)))


def _put(topic: Topic, channel: str, record: list[object]) -> None:
    message = _message(record)
    later = float(str(record[4]))
    if later > 0:
        topic.channels[channel].put_later(message, later)
    else:
        topic.channels[channel].put(message)
