"""What topics and groups are called in Kafka."""

from __future__ import annotations

import hashlib
import re
from typing import Final

#: Names that Kafka takes (org.apache.kafka.common.internals.Topic).
_LEGAL: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_ILLEGAL: Final = re.compile(r"[^A-Za-z0-9._-]")

#: So much of a name that Kafka doesn't take is kept for people to read.
_READABLE: Final = 150

_KNOWN: Final = 4096


class Names(dict[str, str]):
    """The names of topics, each made once; bounded."""

    def __missing__(self, topic: str) -> str:
        if len(self) >= _KNOWN:
            self.clear()
        name = self[topic] = topic_name(topic)
        return name


def topic_name(topic: str) -> str:
    """Return what a topic is called: its own name where Kafka takes it, else what is legal of it and a hash."""
    if _LEGAL.fullmatch(topic) and topic not in (".", ".."):
        return topic
    digest = hashlib.sha256(topic.encode()).hexdigest()[:32]
    return f"{_ILLEGAL.sub('-', topic)[:_READABLE]}-{digest}"


def group_id(group: str, topic: str) -> str:
    """Return the Kafka group of a group's subscription to a topic.

    One for each topic: in a group of Kafka's all members hear of every change of any, whatever they subscribe to.
    """
    return f"{group}/{topic_name(topic)}"  # no name has a slash, so no two pairs share one
