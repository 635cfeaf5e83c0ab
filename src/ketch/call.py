"""The one seam that all traffic passes: publishing, consuming, requesting and serving alike.

A middleware is a function. It sees a call, may change its metadata, may answer it, and otherwise passes it on:

    async def timed(call: Call, call_next: Next) -> object:
        started = time.perf_counter()
        try:
            return await call_next(call)
        finally:
            print(call.kind, call.name, time.perf_counter() - started)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .message import Message


class Kind(StrEnum):
    """Which way the traffic goes."""

    PUBLISH = "publish"
    CONSUME = "consume"
    REQUEST = "request"
    SERVE = "serve"


class Call:
    """One piece of traffic on its way through the middleware.

    Attributes:
        kind: the direction.
        name: the topic of an event, or the method (`/pkg.Service/Method`) of a call.
        payload: the typed event or request; for a call that streams its requests, their async iterator.
        metadata: names in lower case. Outbound (publish, request) it may be changed before `call_next`;
            inbound it is what the peer sent.
        timeout: seconds the caller gives the call, None for no limit.
        message: the event as it travels, None for a call.
        delay: seconds by which an event is published ahead of its time.
    """

    __slots__ = ("delay", "kind", "message", "metadata", "name", "payload", "timeout")

    def __init__(
        self,
        kind: Kind,
        name: str,
        payload: object,
        metadata: dict[str, str],
        *,
        timeout: float | None = None,
        message: Message | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.payload = payload
        self.metadata = metadata
        self.timeout = timeout
        self.message = message
        self.delay = 0.0


Next: TypeAlias = Callable[[Call], Awaitable[object]]
Middleware: TypeAlias = Callable[[Call, Next], Awaitable[object]]


def compose(middleware: Sequence[Middleware], last: Next) -> Next:
    """Chain middleware in front of `last`, the first one outermost. Done once, at start."""
    chain = last
    for step in reversed(middleware):
        chain = _link(step, chain)
    return chain


def _link(step: Middleware, call_next: Next) -> Next:
    def call_step(call: Call) -> Awaitable[object]:
        return step(call, call_next)

    return call_step
