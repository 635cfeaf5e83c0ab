"""Presence: which sessions of a group somebody looks after.

A server deals a group's events out to its sessions, also to those whose member is away, and there they wait. So what a
member has left must be taken over by another. For that each session has a retained message: `here`, `leaving`, `away`;
it says `away` by itself, as the session's will, when its member vanishes. Members of the group watch these messages and
connect under the name of a session that is away: the server hands them what waits in it. `here` is followed by a mark
of the program, so that a member whose session another has taken knows it, and doesn't take it back.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

#: The topics of these messages.
PREFIX = "ketch-sessions/"

_HERE, LEAVING, AWAY = b"here ", b"leaving", b"away"

#: Sessions of one group that are kept track of.
_MAX_SESSIONS = 4096


def new_client_id() -> str:
    """Return the name of a new session: letters and digits, 23 at most, as every server takes it (section 3.1.3.1)."""
    return f"ketch{os.urandom(8).hex()}"


class Presence:
    """The sessions of one group, as its retained messages tell.

    Attributes:
        prefix: the topic of a session's message, less its name.
        users: how many subscriptions of this program use it.
        here: what a session's message says while we look after it.
        news: set when one is away; one for each subscription.
    """

    def __init__(self, share: str, topic_filter: str, patience: float) -> None:
        """Describe it; `patience` is the seconds after which a session that is silent counts as away."""
        key = hashlib.blake2b(f"{share}/{topic_filter}".encode(), digest_size=12).hexdigest()
        self.prefix = f"{PREFIX}{key}/"
        self.users = 0
        self.news: set[asyncio.Event] = set()
        self.here = _HERE + os.urandom(8).hex().encode()
        self._patience = patience
        self._ours: set[str] = set()
        self._sessions: dict[str, tuple[bytes, float]] = {}

    def deaf(self) -> None:
        """Forget all: nothing is heard until the messages come again, so nobody may be taken for away."""
        self._sessions.clear()

    def heard(self, client_id: str, said: bytes) -> None:
        """Take a message."""
        if not said:
            self._sessions.pop(client_id, None)
        elif client_id in self._sessions or len(self._sessions) < _MAX_SESSIONS:
            self._sessions[client_id] = (said, asyncio.get_running_loop().time())
            if said.startswith(_HERE) and said != self.here:
                self._ours.discard(client_id)
        if said == AWAY:
            for event in self.news:
                event.set()

    def claim(self) -> str | None:
        """Return a session that nobody looks after, which is ours from now on; None where there is none."""
        for client_id, (said, heard) in self._sessions.items():
            if client_id not in self._ours and (said == AWAY or not self._fresh(heard)):
                self._ours.add(client_id)
                return client_id
        return None

    def new(self) -> str:
        """Return the name of a new session of ours."""
        client_id = new_client_id()
        self._ours.add(client_id)
        return client_id

    def is_ours(self, client_id: str) -> bool:
        """Tell whether we look after a session, and nobody else has taken it."""
        return client_id in self._ours

    def give_up(self, client_id: str) -> None:
        """Let others have a session of ours."""
        self._ours.discard(client_id)

    def others(self, than: Collection[str]) -> bool:
        """Tell whether somebody looks after a session that isn't among these, and isn't leaving."""
        return any(
            said.startswith(_HERE) and client_id not in than and self._fresh(heard)
            for client_id, (said, heard) in self._sessions.items()
        )

    def _fresh(self, heard: float) -> bool:
        return asyncio.get_running_loop().time() - heard < self._patience
