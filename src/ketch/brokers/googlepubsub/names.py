"""Topics and groups as Pub/Sub's resources (cloud.google.com/pubsub/docs/pubsub-basics#resource_names).

A resource is called 3 to 255 letters, digits and `-_.~+%`, begins with a letter and not with `goog`. What else a name
holds is written as `%XX`, as URLs have it. What doesn't follow from that begins with `x%.` or `h%.`, which no such name
does: so two names never become one.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from uuid import uuid4

_PLAIN = re.compile(rb"[A-Za-z0-9._+-]")
_FITS = re.compile(r"(?!goog)[A-Za-z].{2,254}", re.IGNORECASE)
_LONGEST = 255

#: Of a name that is too long, what people get to see.
_SHOWN = 180


def _encode(text: str) -> str:
    # "~" is encoded too: it stands between a group and its topic.
    return "".join(
        chr(byte) if _PLAIN.fullmatch(bytes((byte,))) else f"%{byte:02X}"
        for byte in text.encode("utf-8", "surrogatepass")
    )


def _fit(name: str) -> str:
    if _FITS.fullmatch(name):
        return name
    if len(name) <= _LONGEST - 3:
        return f"x%.{name}"
    return f"h%.{name[:_SHOWN]}.{hashlib.sha256(name.encode()).hexdigest()}"


@lru_cache(maxsize=4096)
def topic_path(project: str, topic: str) -> str:
    """Return the resource of a topic of ours: `projects/shop/topics/user.created`."""
    return f"projects/{project}/topics/{_fit(_encode(topic))}"


def subscription_path(project: str, topic: str, group: str | None) -> str:
    """Return the resource of a group's subscription, `projects/shop/subscriptions/email~user.created`.

    Without a group it is a new one each time, which holds two `~`, as no group's does.
    """
    name = f"alone~~{uuid4().hex}" if group is None else _fit(f"{_encode(group)}~{_encode(topic)}")
    return f"projects/{project}/subscriptions/{name}"
