"""ServerStream: a streaming call, on the server's side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Cancelled, DeadlineExceeded, Internal, StatusError
from ..http2.codes import ErrorCode
from ..transport import Request
from . import answers, gomicro
from .duplex import Duplex, ended
from .serving import Host, stop

if TYPE_CHECKING:
    import asyncio

    from ..http2.compression import Headers
    from ..transport import StreamHandler
    from .heads import RequestHead


class ServerStream(Duplex):
    """A streaming call, as its handler sees it.

    Attributes:
        task: runs the handler, None before.
        request: what the handler was given, None before.
    """

    def __init__(
        self, wire: Host, stream_id: int, head: RequestHead, handler: StreamHandler, deadline: float | None
    ) -> None:
        super().__init__(wire, stream_id)
        self.deadline = deadline
        self.ends = gomicro.CALLER not in head.metadata  # its generated code sends one request and leaves it at that
        self.task: asyncio.Task[None] | None = None
        self.request: Request | None = None
        self.inbox.encoding = head.encoding
        self.server = wire
        self._request_head = head
        self._handler = handler
        self._headed = False
        self._started = False

    def on_headers(self, headers: Headers, *, end: bool) -> None:  # noqa: ARG002 - the wire has read them
        """Start the handler; later, hear that trailers ended the request."""
        if self._started:
            self.inbox.settle()
            self.wake()
            return
        self._started = True
        head, wire = self._request_head, self.server
        request = Request(head.path, head.metadata, head.content_type, deadline=self.deadline, peer=wire.peer)
        self.request = request
        wire.start(self, self._run, request)

    async def _run(self, request: Request) -> None:
        await self._handler(request, self)

    async def receive(self) -> bytes | None:
        """Return the next message, or None when the client sends no more; see `transport.Stream`."""
        body = await super().receive()
        if self.request is not None:
            self.request.compressed = self.inbox.compressed
        return body

    async def begin(self) -> None:
        """Send the response's headers now; see `transport.Stream`."""
        if self.failure is not None:
            raise self.failure
        if not self.closed and not self._headed:
            self.connection.sender.write(self.head())

    def head(self) -> bytes:
        """Return the response's headers before its first message.

        Raises:
            Internal: the metadata can't be sent.
        """
        if self._headed or self.request is None:
            return b""
        request, content_type = self.request, self._request_head.content_type
        compressed = bool(self.server.tuning.compression) if request.compress is None else request.compress
        self.packs = compressed and self._request_head.takes_gzip
        metadata = request.take_reply_metadata()
        if metadata or self.packs:
            block = answers.full_head(content_type, metadata, compressed=self.packs)
        else:
            block = answers.head(content_type)
        self._headed = True
        return self.connection.headers(self, block)

    def frame(self, body: bytes) -> tuple[bytes, bytes]:
        """Return a message as it is sent: compressed, if its handler says so."""
        if self.request is not None:
            self.compress = self.request.compress
        return super().frame(body)

    async def end(self) -> None:
        """Do nothing: the response ends with its handler."""

    def cancel(self) -> None:
        """Give the call up."""
        self.abandon(Cancelled("the server gave the call up"))

    def give_up(self, error: StatusError) -> None:
        """Answer with an error because of what the client sent; the handler gets it from `receive`."""
        self.fail(error)
        self.answer(error)

    def complete(self, result: None) -> None:  # noqa: ARG002 - a stream returns none
        """End the response well.

        Raises:
            Internal: the metadata can't be sent.
        """
        if self.closed or self.sent_end or self.request is None:
            return
        block = answers.ok(self.request.sent_trailers)
        if not self._headed:
            self.connection.sender.write(self.head())
        answers.finish(self, block)
        self.fail(ended())

    def answer(self, error: StatusError) -> None:
        """End the call with an error; a message that waits for the client's window isn't sent."""
        self.inbox.close()
        if self.closed or self.sent_end:
            return
        self.connection.sender.forget(self)
        error = self._begin_badly(error)
        content_type = self._request_head.content_type
        trailers = None if self.request is None else self.request.sent_trailers
        answers.finish(self, answers.failure(error, content_type, trailers, headed=self._headed))
        self._headed = True
        self.fail(error)

    def _begin_badly(self, error: StatusError) -> StatusError:
        """Send the metadata that the handler wanted ahead of its reply; return what to answer after it."""
        if self._headed or self.request is None or not self.request.reply_metadata:
            return error
        try:
            self.connection.sender.write(self.head())
        except Internal as broken:
            return broken
        return error

    def refuse(self) -> None:
        """Turn the call away before any handler saw it."""
        self.connection.reset(self, ErrorCode.REFUSED_STREAM)

    def abandon(self, error: StatusError) -> None:
        """Answer with an error and cancel the handler."""
        self.answer(error)
        self.fail(error)
        stop(self.server, self)

    def expire(self) -> None:
        """Hear that the deadline has passed."""
        self.deadline = None
        self.abandon(DeadlineExceeded("the deadline passed while the call was handled"))

    def on_reset(self, code: int, reason: str, *, refused: bool) -> None:  # noqa: ARG002 - the caller is gone, whyever
        """Cancel the handler: the caller is gone."""
        self.fail(Cancelled(reason))
        stop(self.server, self)
