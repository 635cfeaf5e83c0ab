"""Patterns of topics: `*` stands for one word between dots, `>` at the end for one or more (as NATS has it)."""

from __future__ import annotations

import re
from functools import lru_cache


def is_pattern(topic: str) -> bool:
    """Tell whether a topic is a pattern: whether one of its words is `*`, or its last one `>`."""
    if "*" not in topic and ">" not in topic:
        return False
    words = topic.split(".")
    return "*" in words or words[-1] == ">"


@lru_cache(maxsize=1024)
def regex(pattern: str) -> re.Pattern[str]:
    """Return a pattern as a regular expression for whole topics."""
    words = pattern.split(".")
    tail = words.pop() if words[-1] == ">" else None
    parts = [r"[^.]+" if word == "*" else re.escape(word) for word in words]
    if tail is not None:
        parts.append(".+")
    return re.compile(r"\.".join(parts), re.DOTALL)


def matches(pattern: str, topic: str) -> bool:
    """Tell whether a topic is one of those that a pattern stands for."""
    return regex(pattern).fullmatch(topic) is not None
