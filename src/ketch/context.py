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

if TYPE_CHECKING:
    from collections.abc import Mapping

_EMPTY: Mapping[str, str] = MappingProxyType({})


class Context:
    """The circumstances of one call or event; read-only for handlers, but for `trailers`.

    Attributes:
        name: the topic of an event, the method of a call (`/pkg.Service/Method`), "" outside both.
        metadata: what the peer sent along, names in lower case; empty outside a call. It is never forwarded
            by itself, so a caller's credentials stay where they were presented.
        deadline: on `time.monotonic()`'s clock, in seconds; None where the caller set none. Calls made from
            within a handler inherit it.
        attempt: which delivery of an event this is, from 1.
        peer: the other side's address where the transport knows it.
        event_id, event_type, event_source, event_time: the event's CloudEvents attributes; "" for a call.
        trailers: metadata that a server's handler wants sent with its reply.
    """

    __slots__ = ("_event", "_trailers", "attempt", "deadline", "metadata", "name", "peer")

    def __init__(
        self,
        name: str = "",
        metadata: Mapping[str, str] = _EMPTY,
        *,
        deadline: float | None = None,
        attempt: int = 1,
        peer: str = "",
        event: Mapping[str, str] = _EMPTY,
    ) -> None:
        self.name = name
        self.metadata = metadata
        self.deadline = deadline
        self.attempt = attempt
        self.peer = peer
        self._event = event
        self._trailers: dict[str, str] | None = None

    @property
    def event_id(self) -> str:
        """The event's id, unique within its source."""
        return self._event.get("ce-id", "")

    @property
    def event_type(self) -> str:
        """The event's type, for a protobuf payload its full message name."""
        return self._event.get("ce-type", "")

    @property
    def event_source(self) -> str:
        """Who published the event."""
        return self._event.get("ce-source", "")

    @property
    def event_time(self) -> str:
        """When the event was published, RFC 3339 in UTC."""
        return self._event.get("ce-time", "")

    @property
    def trailers(self) -> dict[str, str]:
        """Trailing metadata of the reply; write into it."""
        if self._trailers is None:
            self._trailers = {}
        return self._trailers

    def remaining(self) -> float | None:
        """Return the seconds left until the deadline, never negative, or None where there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


_NONE = Context()
_current: ContextVar[Context] = ContextVar("ketch", default=_NONE)


def current() -> Context:
    """Return the context of the handler that is running, or an empty one outside any handler."""
    return _current.get()


def enter(context: Context) -> Token[Context]:
    """Make `context` the current one; hand the token to `leave` where the task outlives the call."""
    return _current.set(context)


def leave(token: Token[Context]) -> None:
    """Restore what was current before `enter`."""
    _current.reset(token)
