"""What is known about the call or the event in hand: its metadata, its deadline, its message.

There is one `ContextVar`. A server or a consumer sets it around a handler; a handler reads it:

    from ketch import context
    context.current().metadata.get("x-request-id")
"""

from __future__ import annotations

import time
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import TYPE_CHECKING

from .peer import Peer, PeerIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .message import Message

_EMPTY: Mapping[str, str] = MappingProxyType({})


class Context:
    """The circumstances of one call or event; read-only for handlers, but for `trailers`.

    Attributes:
        name: the topic of an event, the method of a call (`/pkg.Service/Method`), "" outside both.
        deadline: on `time.monotonic()`'s clock, in seconds; None where the caller set none. Calls made from
            within a handler inherit it.
        message: the event as it came, with its id, type, source and time; None for a call.
        attempt: which delivery of an event this is, from 1.
        peer: the caller's address, "" for an event.
    """

    __slots__ = ("_metadata", "_trailers", "attempt", "deadline", "message", "name", "peer")

    def __init__(
        self,
        name: str = "",
        metadata: Mapping[str, str] | None = None,
        message: Message | None = None,
        attempt: int = 1,
        deadline: float | None = None,
        peer: str = "",
    ) -> None:
        self.name = name
        self._metadata = metadata
        self.message = message
        self.attempt = attempt
        self.deadline = deadline
        self.peer = peer
        self._trailers: dict[str, str] | None = None

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the peer sent along, names in lower case; empty outside a call.

        It is never forwarded by itself, so a caller's credentials stay where they were presented.
        """
        if self._metadata is None:
            # Most handlers never ask, so an event's are only then told apart from its attributes.
            self._metadata = self.message.metadata if self.message is not None else _EMPTY
        return self._metadata

    @property
    def trailers(self) -> dict[str, str]:
        """Metadata to be sent after a call's reply; a server's handler writes into it."""
        if self._trailers is None:
            self._trailers = {}
        return self._trailers

    @property
    def sent_trailers(self) -> Mapping[str, str] | None:
        """The trailers that the handler asked for, None for none."""
        return self._trailers

    @property
    def peer_identity(self) -> PeerIdentity | None:
        """Who the caller's certificate says it is, verified; None where it presented none (it needs mutual TLS)."""
        return self.peer.identity if isinstance(self.peer, Peer) else None

    def remaining(self) -> float | None:
        """Return the seconds left until the deadline, never negative, or None where there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


_NONE = Context()
_current: ContextVar[Context] = ContextVar("ketch", default=_NONE)


def current() -> Context:
    """Return the context of the handler that is running, or an empty one outside any handler."""
    return _current.get()


#: Make a context the current one; hand the token to `leave` where the task outlives the call.
enter: Callable[[Context], Token[Context]] = _current.set


def leave(token: Token[Context]) -> None:
    """Restore what was current before `enter`."""
    _current.reset(token)
