"""Calling: the calls that a client makes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import Cancelled, DeadlineExceeded, Internal, StatusError, Unimplemented
from ..http2.codes import ErrorCode
from ..http2.stream import Stream
from . import status
from .duplex import Duplex, ended
from .framing import PREFIX
from .heads import response_head
from .inbox import Inbox
from .metadata import NONE
from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..context import ReplyMetadata
    from ..http2.compression import Headers
    from .heads import ResponseHead


class Caller(Wire):
    """A connection, as the calls that are made on it see it."""

    def failure(self, code: int, reason: str, *, refused: bool, deadline: float | None) -> StatusError:
        """Return the error of a call whose stream was reset."""
        raise NotImplementedError


class ClientUnary(Stream):
    """One call with one reply.

    Attributes:
        reply: gets the reply's body, or the call's status.
        refused: the server didn't look at the call; it may be made again elsewhere.
        deadline: on `time.monotonic()`'s clock, None for none.
        received: gets the metadata that comes along, None where nobody wants it.
    """

    __slots__ = ("_body", "_head", "_inbox", "_wire", "deadline", "received", "refused", "reply")

    def __init__(
        self, wire: Caller, reply: asyncio.Future[bytes], deadline: float | None, received: ReplyMetadata | None
    ) -> None:
        # What `Stream.__init__` does: one call less for each of ours.
        connection = wire.connection
        self.id = 0
        self.send_window = connection.peer.initial_window_size
        self.pending = None
        self.connection = connection
        self.closed = False
        self.sent_end = False
        self.got_end = False
        self.receive_window = self.window = connection.limits.stream_window
        self.expected = -1
        self._consumed = 0
        self.reply = reply
        self.refused = False
        self.deadline = deadline
        self._wire = wire
        self._body: bytes | None = None
        self._inbox: Inbox | None = None
        self.received = received
        self._head: ResponseHead | None = None

    def on_whole(self, headers: Headers, payload: bytes, trailers: Headers) -> bool:
        """Take a reply that came in one piece, if it is that: not compressed, and with status OK."""
        head, tail, reply = headers.memo, trailers.memo, self.reply
        if (
            head is None
            or tail is None
            or head.informational
            or head.error is not None
            or self._head is not None
            or not tail.ok
            or tail.error is not None
            or payload[:1] != b"\0"
            or not int.from_bytes(payload[1:PREFIX]) == len(payload) - PREFIX <= self._wire.tuning.max_message_size
            or not self.sent_end
            or reply.done()
        ):
            return False
        if self.received is not None:
            self.received.fill(head.metadata, tail.metadata)
        reply.set_result(payload[PREFIX:])
        return True

    def on_headers(self, headers: Headers, *, end: bool) -> None:
        """Take the response's headers, or its trailers."""
        head: ResponseHead = headers.memo or response_head(headers)
        if end:
            self._finish(head)
        elif self._head is not None:
            self.fail(Internal("the server sent headers twice"))
        elif not head.informational:
            self._head = head
            if self.received is not None:
                self.received.fill(head.metadata, NONE)
            if head.error is not None and not head.has_status:  # a status counts in what ends the response
                self.fail(head.failure())

    def on_data(self, payload: bytes, *, end: bool) -> None:
        """Take a piece of the reply; mostly it is all of it."""
        if (
            self._body is None
            and self._inbox is None
            and payload[:1] == b"\0"
            and int.from_bytes(payload[1:PREFIX]) == len(payload) - PREFIX <= self._wire.tuning.max_message_size
        ):
            self._body = payload[PREFIX:]
        elif payload:
            self._feed(payload)
        if end:
            self.fail(status.no_status())

    def _feed(self, payload: bytes) -> None:
        inbox = self._inbox
        if inbox is None:
            inbox = self._inbox = Inbox(self, self._wire.pool, self._wire.tuning.max_message_size)
            if self._head is not None:
                inbox.encoding = self._head.encoding
        inbox.feed(payload)
        try:
            if self._body is None:
                self._body = inbox.take()
            if self._body is not None and inbox:
                raise Unimplemented("the server sent more than one reply to a unary call")
        except StatusError as error:
            self.fail(error)

    def _finish(self, head: ResponseHead) -> None:
        cut_off = bool(self._inbox)
        if self._inbox is not None:
            self._inbox.close()
            self._inbox = None  # they hold each other, and the reply would stay until the garbage collector comes
        if self.received is not None:
            self.received.fill(NONE if self._head is None else self._head.metadata, head.metadata)
        reply = self.reply
        if reply.done():
            return
        if not head.ok or head.error is not None:
            reply.set_exception(head.failure())
        elif self._body is None:
            reply.set_exception(_no_reply(cut_off=cut_off))
        else:
            reply.set_result(self._body)
        if not self.sent_end:
            self.connection.reset(self, ErrorCode.NO_ERROR)

    def fail(self, error: StatusError) -> None:
        """Give the call up with an error."""
        if self._inbox is not None:
            self._inbox.close()
        if not self.reply.done():
            self.reply.set_exception(error)
        self.connection.reset(self, ErrorCode.CANCEL)

    def expire(self) -> None:
        """Hear that the deadline has passed."""
        self.deadline = None
        self.fail(DeadlineExceeded("the deadline passed before the reply came"))

    def on_reset(self, code: int, reason: str, *, refused: bool) -> None:
        """Hear that the server, or the connection, gave the call up."""
        if self._inbox is not None:
            self._inbox.close()
        self.refused = refused
        if not self.reply.done():
            self.reply.set_exception(self._wire.failure(code, reason, refused=refused, deadline=self.deadline))


def _no_reply(*, cut_off: bool) -> StatusError:
    if cut_off:
        return Internal("the call ended well, but its reply is cut off")
    return Unimplemented("the call ended well, but without a reply")  # a cardinality violation, in statuscodes.md


class ClientStream(Duplex):
    """A streaming call, as its caller sees it."""

    def __init__(self, wire: Caller, deadline: float | None) -> None:
        super().__init__(wire)
        self.deadline = deadline
        self._client = wire
        self._head: ResponseHead | None = None
        self._trailers: Mapping[str, str] = NONE
        self._done = False
        self._beginning: asyncio.Future[None] | None = None

    async def begun(self) -> Mapping[str, str]:
        """Wait for the initial metadata; see `transport.Stream`."""
        if self._head is None and not self._done:
            if self._beginning is None:
                self._beginning = self._client.loop.create_future()
            await asyncio.shield(self._beginning)
        if self._head is None and self.failure is not None:
            raise self.failure
        return self.metadata

    def _begin(self) -> None:
        if self._beginning is not None and not self._beginning.done():
            self._beginning.set_result(None)

    @property
    def metadata(self) -> Mapping[str, str]:
        """The initial metadata."""
        return NONE if self._head is None else self._head.metadata

    @property
    def trailers(self) -> Mapping[str, str]:
        """The trailing metadata."""
        return self._trailers

    async def end(self) -> None:
        """Say that no more messages come."""
        if self.pending is not None:
            self.pending.end = True
        elif not self.closed and not self.sent_end:
            self.connection.sender.message(self, b"", b"", end=True)

    def cancel(self) -> None:
        """Give the call up."""
        if not self._done:
            self.give_up(Cancelled("the caller gave the call up"))

    def give_up(self, error: StatusError) -> None:
        """End the call from this side."""
        self._done = True
        self.fail(error)
        self._begin()
        self.connection.reset(self, ErrorCode.CANCEL)

    def expire(self) -> None:
        """Hear that the deadline has passed."""
        self.deadline = None
        self.give_up(DeadlineExceeded("the deadline passed while the call was under way"))

    def is_over(self) -> bool:
        """Whether the server has sent its status."""
        return self._done

    def on_headers(self, headers: Headers, *, end: bool) -> None:
        """Take the response's headers, or its trailers."""
        head: ResponseHead = headers.memo or response_head(headers)
        if end:
            self._finish(head)
        elif self._head is not None:
            self.give_up(Internal("the server sent headers twice"))
        elif not head.informational:
            self._head = head
            self._begin()
            self.inbox.encoding = head.encoding
            if head.error is not None and not head.has_status:  # a status counts in what ends the response
                self.give_up(head.failure())

    def on_data(self, payload: bytes, *, end: bool) -> None:
        """Take a piece of a message."""
        super().on_data(payload, end=end)
        if end and not self._done:
            self._done = True
            self.fail(status.no_status(), keep=True)
            self._stop_sending()

    def _finish(self, head: ResponseHead) -> None:
        self._done = True
        self._trailers = head.metadata
        if not head.ok or head.error is not None:
            self.fail(head.failure(), keep=True)
        else:
            self.inbox.settle()
            self.wake()
            self.stop_writer(ended())
        self._begin()
        self._stop_sending()

    def _stop_sending(self) -> None:
        if not self.sent_end:
            self.connection.reset(self, ErrorCode.NO_ERROR)

    def on_reset(self, code: int, reason: str, *, refused: bool) -> None:
        """Hear that the server, or the connection, gave the call up."""
        if not self._done:
            self._done = True
            self.fail(self._client.failure(code, reason, refused=refused, deadline=self.deadline))
            self._begin()
