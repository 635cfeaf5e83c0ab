"""UnaryCall: a call with one request and one reply, on the server's side."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..errors import DeadlineExceeded, Internal, StatusError, Unimplemented
from ..http2.codes import ErrorCode
from ..http2.stream import Stream
from ..transport import Request
from . import answers
from .framing import PREFIX, WORTHWHILE, compress, prefix
from .inbox import Inbox
from .serving import Host, stop

if TYPE_CHECKING:
    import asyncio

    from ..http2.compression import Headers
    from ..transport import UnaryHandler
    from .heads import RequestHead


class UnaryCall(Stream):
    """One request, one reply.

    Attributes:
        deadline: on `time.monotonic()`'s clock, None for none.
        task: runs the handler, None before.
        request: what the handler was given, None before.
    """

    __slots__ = ("_handler", "_head", "_inbox", "_sent", "_wire", "deadline", "request", "task")

    def __init__(
        self, wire: Host, stream_id: int, head: RequestHead, handler: UnaryHandler, deadline: float | None
    ) -> None:
        # What `Stream.__init__` does: one call less for each of ours.
        connection = wire.connection
        self.id = stream_id
        self.send_window = connection.peer.initial_window_size
        self.pending = None
        self.connection = connection
        self.closed = False
        self.sent_end = False
        self.got_end = False
        self.receive_window = self.window = connection.limits.stream_window
        self.expected = -1
        self._consumed = 0
        self.deadline = deadline
        self.task: asyncio.Task[None] | None = None
        self.request: Request | None = None
        self._wire = wire
        self._head = head
        self._handler = handler
        self._inbox: Inbox | None = None
        self._sent = -1  # bytes of the reply that had gone when it was looked at, -1 where the caller set a deadline

    def on_request(self, headers: Headers, payload: bytes) -> None:  # noqa: ARG002 - the wire has read them
        """Take all of the request at once."""
        self.got_end = True
        self.on_data(payload, end=True)

    def on_headers(self, headers: Headers, *, end: bool) -> None:  # noqa: ARG002 - the wire has read them
        """Take the request's headers; its message follows."""
        if end:
            self._finish_request()

    def on_data(self, payload: bytes, *, end: bool) -> None:
        """Take a piece of the message; mostly it is all of it."""
        if (
            end
            and self._inbox is None
            and payload[:1] == b"\0"
            and int.from_bytes(payload[1:PREFIX]) == len(payload) - PREFIX <= self._wire.tuning.max_message_size
        ):
            head, wire = self._head, self._wire
            request = self.request = Request(
                head.path, head.metadata, head.content_type, self.deadline, wire.peer, payload[PREFIX:]
            )
            wire.start(self, self._handler, request)
            return
        if self._inbox is None:
            self._inbox = Inbox(self, self._wire.pool, self._wire.tuning.max_message_size)
            self._inbox.encoding = self._head.encoding
        self._inbox.feed(payload)
        try:
            self._inbox.check()
            if end:
                self._finish_request()
        except StatusError as error:
            self.answer(error)

    def _finish_request(self) -> None:
        inbox = self._inbox
        body = inbox.take() if inbox is not None else None
        if body is None and inbox:
            self.answer(Internal("the message is cut off"))
        elif body is None or inbox:
            # What statuscodes.md calls a cardinality violation.
            self.answer(Unimplemented(f"{self._head.path} takes one message, {'more' if inbox else 'none'} came"))
        else:
            self._inbox = None  # they hold each other, and the request would stay until the garbage collector comes
            head, wire = self._head, self._wire
            request = Request(head.path, head.metadata, head.content_type, self.deadline, wire.peer, body)
            request.compressed = inbox is not None and inbox.compressed
            self.request = request
            wire.start(self, self._handler, request)

    def complete(self, result: bytes) -> None:
        """Send headers, reply and trailers in one go.

        Raises:
            ResourceExhausted: the reply is too large.
            Internal: the metadata can't be sent.
        """
        request = self.request
        if self.closed or self.sent_end or request is None:
            return
        head, tuning, metadata = self._head, self._wire.tuning, request.sent_metadata
        insist = request.compress
        if head.takes_gzip and (insist or (insist is None and tuning.compression and len(result) >= WORTHWHILE)):
            lead, result = compress(result, tuning.max_send_size, insist=insist is True)
            block = answers.full_head(head.content_type, metadata, compressed=True)
        else:
            lead = prefix(result, tuning.max_send_size)
            block = answers.head(head.content_type)
            if metadata:
                block = answers.full_head(head.content_type, metadata, compressed=False)
        trailers = request.sent_trailers
        tail = answers.ok(trailers) if trailers else answers.OK
        if not self.connection.sender.whole(self, block, lead, result, tail):
            self.connection.piecemeal(self, block, lead, result, tail)
            if self.pending is not None and self.deadline is None:
                self._watch_reading(self.pending.at)

    def _watch_reading(self, sent: int) -> None:
        """See to it that a reply which nobody reads is dropped, though its caller set no deadline."""
        self._sent = sent
        self.deadline = time.monotonic() + self._wire.tuning.stall_timeout
        self._wire.deadlines.watch(self.deadline)

    def answer(self, error: StatusError) -> None:
        """End the call with an error, after the metadata that the handler wanted sent ahead."""
        if self._inbox is not None:
            self._inbox.close()
        if self.closed or self.sent_end or self.pending is not None:
            return
        request, content_type = self.request, self._head.content_type
        trailers = None if request is None else request.sent_trailers
        metadata = None if request is None else request.sent_metadata
        if metadata:
            try:
                block = answers.full_head(content_type, metadata, compressed=False)
            except Internal as broken:
                error, metadata = broken, None
            else:
                self.connection.sender.write(self.connection.headers(self, block))
        answers.finish(self, answers.failure(error, content_type, trailers, headed=bool(metadata)))

    def refuse(self) -> None:
        """Turn the call away before any handler saw it."""
        self.connection.reset(self, ErrorCode.REFUSED_STREAM)

    def abandon(self, error: StatusError) -> None:
        """Answer with an error and cancel the handler."""
        self.answer(error)
        stop(self._wire, self)

    def expire(self) -> None:
        """Hear that the deadline has passed."""
        self.deadline = None
        if self.pending is not None:
            if 0 <= self._sent < self.pending.at:
                self._watch_reading(self.pending.at)
                return
            self.connection.reset(self, ErrorCode.CANCEL)  # the reply of a caller that doesn't read it
            self._wire.retire(self)  # calls that waited for its room go on
        self.abandon(DeadlineExceeded("the deadline passed while the call was handled"))

    def on_reset(self, code: int, reason: str, *, refused: bool) -> None:  # noqa: ARG002 - the caller is gone, whyever
        """Cancel the handler: nobody waits for its reply."""
        if self._inbox is not None:
            self._inbox.close()
        stop(self._wire, self)
