"""Topics and groups as NSQ's topics and channels: 1 to 64 of letters, digits and `.`, `_`, `-`.

A name that fits goes as it is. Another one keeps what people recognize it by and gets a digest, after `--`; so does one
that only looks as if it had one. Two names never become one.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from uuid import uuid4

_FITS = re.compile(r"[.a-zA-Z0-9_-]{1,64}")
_DIGESTED = re.compile(r".*--[0-9a-f]{32}", re.DOTALL)
_ALIEN = re.compile(r"[^.a-zA-Z0-9_-]")
_SHOWN = 30


@lru_cache(maxsize=4096)
def nsq_name(name: str) -> str:
    """Return what a topic or a group is called in NSQ."""
    if _FITS.fullmatch(name) and not _DIGESTED.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{_ALIEN.sub('_', name)[:_SHOWN]}--{digest}"


def channel_name(group: str | None) -> str:
    """Return a group's channel; without a group a new one that NSQ forgets with its last connection."""
    return nsq_name(group) if group is not None else f"alone-{uuid4().hex}#ephemeral"
