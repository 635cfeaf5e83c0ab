"""Duplex: a streaming call, the part that client and server have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import transport
from ..errors import Cancelled, Internal, StatusError
from ..http2.stream import Stream
from .framing import compress, prefix, too_large
from .inbox import Inbox

if TYPE_CHECKING:
    import asyncio

    from .wire import Wire


class Duplex(Stream, transport.Stream):
    """Messages in order, each way, over one HTTP/2 stream.

    Attributes:
        failure: what the call ended with, None while it goes on or when it ended well.
        deadline: on `time.monotonic()`'s clock, None for none.
        packs: the headers say that messages may come compressed.
    """

    def __init__(self, wire: Wire, stream_id: int = 0) -> None:
        Stream.__init__(self, wire.connection, stream_id)
        self.wire = wire
        self.failure: StatusError | None = None
        self.deadline: float | None = None
        self.compress: bool | None = None
        self.packs = False
        self.inbox = Inbox(self, wire.pool, wire.tuning.max_message_size)
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    async def receive(self) -> bytes | None:
        """Return the next message, or None when the peer sends no more; see `transport.Stream`."""
        while True:
            body = self._take()
            if body is not None:
                return body
            if self.failure is not None:
                raise self.failure
            if self.is_over():
                return None
            self._reader = self.wire.loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None

    async def send(self, body: bytes) -> None:
        """Send one message; waits while the peer takes no more; see `transport.Stream`.

        Who is cancelled while waiting has sent it all the same: part of it may have gone.
        """
        while self.pending is not None and self.failure is None:
            await self._drain()
        if self.failure is not None:
            raise self.failure
        if self.closed or self.sent_end:
            raise ended()
        limit = self.wire.tuning.max_send_size
        if len(body) > limit:
            raise too_large(len(body), limit)  # while the headers don't count as sent yet
        head = self.head()
        lead, message = self.frame(body)
        if not self.connection.sender.message(self, head, message, end=False, lead=lead):
            await self._drain()

    async def _drain(self) -> None:
        """Wait until the message that is being sent has gone."""
        self._writer = self.wire.loop.create_future()
        try:
            await self._writer
        finally:
            self._writer = None

    def head(self) -> bytes:
        """Return header frames that have to go before the first message."""
        return b""

    def frame(self, body: bytes) -> tuple[bytes, bytes]:
        """Return a message as it is sent: what goes before it, and what it is."""
        limit = self.wire.tuning.max_send_size
        if self.packs and self.compress is not False:
            return compress(body, limit, insist=self.compress is True)
        return prefix(body, limit), body

    def is_over(self) -> bool:
        """Whether the peer sends no more."""
        return self.got_end

    def give_up(self, error: StatusError) -> None:
        """End the call from this side, because of what the peer sent."""
        raise NotImplementedError

    def on_data(self, payload: bytes, *, end: bool) -> None:
        """Take a piece of a message."""
        self.inbox.feed(payload)
        if end:
            self.inbox.settle()
        self.wake()

    def on_drained(self) -> None:
        """Go on sending."""
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def wake(self) -> None:
        """Let whoever receives look again."""
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def fail(self, error: StatusError, *, keep: bool = False) -> None:
        """End the call with an error; whoever sends or receives gets it. The first one counts.

        `keep` says that messages which came before it may still be received.
        """
        if self.failure is None:
            self.failure = error
            if not keep:
                self.inbox.close()
        self.inbox.settle()
        self.wake()
        self.stop_writer(self.failure)

    def stop_writer(self, error: StatusError) -> None:
        """Let whoever is sending fail."""
        if self._writer is not None and not self._writer.done():
            self._writer.set_exception(error)

    def _take(self) -> bytes | None:
        try:
            body = self.inbox.take()
            if body is None and self.is_over() and self.inbox and self.failure is None:
                raise Internal("the last message is cut off")
        except StatusError as error:
            self.give_up(error)
            raise
        return body


def ended() -> StatusError:
    """Return the error for sending on a call that ended well."""
    return Cancelled("the call has ended; nothing more can be sent")
