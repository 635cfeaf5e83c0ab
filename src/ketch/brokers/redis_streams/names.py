"""Keys and names in the server.

A topic is the stream of that name, and a group the consumer group of that name: Redis takes any bytes for both, so a
plain client finds them. What is our own begins with `ketch:`. The length in it keeps topics and groups apart that hold
colons and braces.
"""

from __future__ import annotations

#: The consumer, in each group, that holds what waits to be delivered again; no program goes by that name.
WAITING = "ketch:waiting"


def alive(topic: str, group: str) -> str:
    """Return the key of a group's living members: a sorted set of consumers by when they were last seen."""
    return f"ketch:alive:{len(topic)}:{{{topic}}}:{group}"


def scheduled(topic: str) -> str:
    """Return the key of a topic's events for later: a sorted set of packed entries by when they are due."""
    return f"ketch:scheduled:{{{topic}}}"
