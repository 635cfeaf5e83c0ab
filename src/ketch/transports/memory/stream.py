"""MemoryStream: one side of a streaming call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import Cancelled
from ...transport import Stream
from .crossing import check_size, ended

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .exchange import Exchange


class MemoryStream(Stream):
    """One side of a streaming call."""

    def __init__(self, exchange: Exchange, *, client: bool) -> None:
        self._exchange = exchange
        self._client = client
        self._in = exchange.replies if client else exchange.requests
        self._out = exchange.requests if client else exchange.replies
        self._said_end = False
        self.compress = None

    async def send(self, body: bytes) -> None:
        """Send one message, once there is room; see `transport.Stream`."""
        if self._said_end:
            raise ended()
        check_size(body, self._exchange.limit)
        if not self._client:
            self._exchange.begin()
        await self._out.put(bytes(body))

    async def begin(self) -> None:
        """Send the metadata that comes ahead of the replies; see `transport.Stream`."""
        self._exchange.begin()

    async def receive(self) -> bytes | None:
        """Return the next message, None when no more come; see `transport.Stream`."""
        return await self._in.get()

    async def end(self) -> None:
        """Say that no more messages come."""
        if self._client and not self._said_end:
            self._said_end = True
            self._out.close(None)

    def cancel(self) -> None:
        """Give the call up."""
        who = "caller" if self._client else "server"
        self._exchange.abandon(Cancelled(f"the {who} gave the call up"))

    async def begun(self) -> Mapping[str, str]:
        """Wait for the initial metadata; see `transport.Stream`."""
        await self._exchange.begun.wait()
        outcome = self._exchange.outcome
        if not self._exchange.metadata and outcome.done() and (error := outcome.exception()):
            raise error
        return self._exchange.metadata

    @property
    def metadata(self) -> Mapping[str, str]:
        """The initial metadata."""
        return self._exchange.metadata

    @property
    def trailers(self) -> Mapping[str, str]:
        """The trailing metadata."""
        return self._exchange.trailers
