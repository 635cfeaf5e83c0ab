"""How topics, groups and patterns are called on the server.

A group's queue is `EXCHANGE/GROUP/TOPIC`, such as `ketch/go.micro.srv.email/user.created`. Letters, digits, `.`, `-`
and `_` stand for themselves, every other byte is `+` and two hexadecimal digits, so no two groups share a queue. What
gets longer than AMQP's 255 bytes is cut and ends with a hash of all of it.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from ...pattern import is_pattern

#: Bytes of a queue's name and of a routing key (AMQP 0-9-1, section 4.2.5.3: short strings).
LONGEST: Final = 255

_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_ESCAPED = re.compile(r"\+([0-9A-F]{2})")


def escape(name: str) -> str:
    """Return a name in the characters that a queue's name may have."""
    return "".join(chr(byte) if byte in _PLAIN else f"+{byte:02X}" for byte in name.encode())


def unescape(name: str) -> str:
    """Return the name that was escaped."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name).encode("latin-1").decode("utf-8", "replace")


def queue_name(exchange: str, group: str, topic: str) -> str:
    """Return the name of a group's queue."""
    # A queue whose name begins with "amq." is the server's own.
    start = escape(exchange).replace("amq.", "amq+2E", 1)
    name = f"{start}/{escape(group)}/{escape(topic)}"
    if len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:40]
    return f"{name[: LONGEST - 41]}/{digest}"


def group_of(queue: str) -> str:
    """Return the group whose queue it is, "" when its name doesn't say."""
    parts = queue.split("/")
    return unescape(parts[1]) if len(parts) == 3 else ""  # noqa: PLR2004 - exchange, group, topic


def binding_key(topic: str) -> str:
    """Return what binds a topic, or a pattern of topics, to a topic exchange; see `exact`.

    There `*` is one word, as here, and `#` any number of them, none too: hence `*.#` for one or more.
    """
    words = topic.split(".")
    tail = ["*", "#"] if is_pattern(topic) and words[-1] == ">" else []
    if tail:
        words.pop()
    # A topic may have a word "#" that means itself: every word there, and the others are left out on arrival.
    return ".".join(["*" if word == "#" else word for word in words] + tail)


def exact(topic: str) -> bool:
    """Tell whether `binding_key` matches this topic and nothing else."""
    return not is_pattern(topic) and "#" not in topic.split(".")
