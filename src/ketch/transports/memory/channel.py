"""MemoryChannel: calls to one address."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from ...errors import Cancelled
from ...transport import Channel, Request, Stream
from .crossing import check_size, crossed_metadata
from .exchange import Exchange
from .stream import MemoryStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...context import ReplyMetadata
    from ...transport import Metadata


class MemoryChannel(Channel):
    """Calls to one address of one world; `find` returns what takes them there, or raises `Unavailable`."""

    def __init__(self, find: Callable[[], Callable[[Exchange], None]], limit: int) -> None:
        self._find = find
        self._limit = limit
        self._closed = False
        self._calls: set[Exchange] = set()

    async def unary(
        self,
        method: str,
        body: bytes,
        *,
        content_type: str,
        metadata: Metadata | None = None,
        timeout: float | None = None,
        received: ReplyMetadata | None = None,
        compress: bool | None = None,  # noqa: ARG002 - nothing travels, so there is nothing to save
    ) -> bytes:
        """Make one call and return its reply's body; see `transport.Channel`."""
        exchange = self._start(method, content_type, metadata, timeout, bytes(body))
        try:
            reply = await asyncio.shield(exchange.outcome)
        except asyncio.CancelledError:
            exchange.abandon(Cancelled("the caller gave the call up"))
            raise
        finally:
            if received is not None:
                received.fill(exchange.metadata, exchange.trailers)
        check_size(reply or b"", self._limit)
        return reply or b""

    async def stream(
        self,
        method: str,
        *,
        content_type: str,
        metadata: Metadata | None = None,
        timeout: float | None = None,
        compress: bool | None = None,  # noqa: ARG002 - as above
    ) -> Stream:
        """Start a streaming call; see `transport.Channel`."""
        return MemoryStream(self._start(method, content_type, metadata, timeout, b""), client=True)

    async def close(self) -> None:
        """End the calls in hand; see `transport.Channel`."""
        self._closed = True
        for exchange in list(self._calls):
            exchange.abandon(Cancelled("the channel was closed"))

    def _start(
        self, method: str, content_type: str, metadata: Metadata | None, timeout: float | None, body: bytes
    ) -> Exchange:
        if self._closed:
            raise Cancelled("the channel was closed")
        check_size(body, self._limit)
        deadline = None if timeout is None else time.monotonic() + timeout
        crossed = crossed_metadata(metadata)
        request = Request(method, crossed, content_type, deadline=deadline, peer="memory:client", body=body)
        accept = self._find()
        exchange = Exchange(request, self._limit)
        self._calls.add(exchange)
        exchange.outcome.add_done_callback(lambda _: self._calls.discard(exchange))
        accept(exchange)
        return exchange
