"""What a topic and a group are called at AWS, which allows letters, digits, "-" and "_".

A name of letters, digits and "-" between dots keeps its looks: its dots become "_", and a queue is called
`group__topic`. Any other, and one that gets too long, is cut and ends in "___" and a hash of the whole, which no name
of the first kind contains: so no two names ever meet.
"""

from __future__ import annotations

import re
from hashlib import sha256

#: Characters that an SNS topic's name and an SQS queue's may have.
TOPIC_LENGTH = 256
QUEUE_LENGTH = 80

_PLAIN = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")
_OTHER = re.compile(r"[^A-Za-z0-9-]+")
_HASH = 20


def topic_name(prefix: str, topic: str) -> str:
    """Return what a topic's SNS topic is called."""
    return prefix + _fitted((topic,), TOPIC_LENGTH - len(prefix))


def queue_name(prefix: str, group: str, topic: str) -> str:
    """Return what the SQS queue of a group and a topic is called."""
    return prefix + _fitted((group, topic), QUEUE_LENGTH - len(prefix))


def lone_prefix(prefix: str) -> str:
    """Return what the queues of subscriptions without a group begin with; no group's queue does."""
    return f"{prefix}_alone_"


def lone_name(prefix: str, topic: str, unique: str) -> str:
    """Return what the queue of a subscription without a group is called."""
    begin = lone_prefix(prefix)
    return begin + _fitted((topic, unique), QUEUE_LENGTH - len(begin))


def _fitted(parts: tuple[str, ...], length: int) -> str:
    if all(_PLAIN.fullmatch(part) for part in parts):
        name = "__".join(part.replace(".", "_") for part in parts)
        if len(name) <= length:
            return name
    digest = sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:_HASH]
    looks = "__".join(_OTHER.sub("_", part).strip("_") for part in parts).strip("_")
    return f"{looks[: length - _HASH - 3].rstrip('_') or 'x'}___{digest}"
