"""Serving: the calls that come in, and the tasks that handle them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..errors import Cancelled, DeadlineExceeded, Internal, StatusError, Unknown
from ..http2.stream import Stream
from ..transport import Request
from . import answers
from .duplex import Duplex, frame
from .inbox import PREFIX, Inbox
from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ..http2.compression import Headers
    from ..transport import StreamHandler, UnaryHandler
    from .heads import RequestHead

    Call: TypeAlias = "UnaryCall | ServerStream"

log = logging.getLogger("ketch.grpc")

#: Bytes of a refused request's body that are waited for before it is answered all the same.
_PATIENCE: Final = 65_535


class Host(Wire):
    """A connection, as the calls that come in on it see it."""

    def start(self, call: Call, handler: Callable[[Request], Awaitable[Any]], request: Request) -> None:
        """Handle a call in a task of its own."""
        raise NotImplementedError

    def retire(self, call: Call) -> None:
        """Forget a call whose handler has ended."""
        raise NotImplementedError


async def serve(wire: Host, call: Call, handler: Callable[[Request], Awaitable[Any]], request: Request) -> None:
    """Run a handler and answer the call; the whole life of a handler's task."""
    try:
        result = await handler(request)
        call.complete(result, request.trailers)
    except StatusError as error:
        call.answer(error)
    except asyncio.CancelledError:
        call.answer(Cancelled("the handler was cancelled"))
        raise
    except Exception:
        log.exception("%s: the handler failed", request.method)
        call.answer(Unknown("the handler failed; its service's log has the reason"))
    finally:
        wire.retire(call)


class UnaryCall(Stream):
    """One request, one reply.

    Attributes:
        deadline: on `time.monotonic()`'s clock, None for none.
        task: runs the handler, None before.
    """

    __slots__ = ("_handler", "_head", "_inbox", "_wire", "deadline", "task")

    def __init__(
        self, wire: Host, stream_id: int, head: RequestHead, handler: UnaryHandler, deadline: float | None
    ) -> None:
        super().__init__(wire.connection, stream_id)
        self.deadline = deadline
        self.task: asyncio.Task[None] | None = None
        self._wire = wire
        self._head = head
        self._handler = handler
        self._inbox: Inbox | None = None

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
            self._start(payload[PREFIX:])
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
        if body is None or inbox:
            self.answer(Internal("a unary call takes exactly one complete message"))
        else:
            self._start(body)

    def _start(self, body: bytes) -> None:
        head, wire = self._head, self._wire
        request = Request(
            head.path, head.metadata, head.content_type, deadline=self.deadline, peer=wire.peer, body=body
        )
        wire.start(self, self._handler, request)

    def complete(self, result: bytes, trailers: Mapping[str, str] | None) -> None:
        """Send headers, reply and trailers in one go."""
        if self.closed or self.sent_end:
            return
        connection = self.connection
        message = frame(result, self._wire.tuning.max_message_size)
        end = answers.ok(trailers)
        head = connection.headers(self, answers.head(self._head.content_type))
        tail = connection.trailers(self, end)
        connection.sender.message(self, head, message, end=False, trailers=tail)

    def answer(self, error: StatusError) -> None:
        """End the call with an error."""
        if self._inbox is not None:
            self._inbox.close()
        if not self.closed and not self.sent_end and self.pending is None:
            answers.finish(self, answers.failure(error, self._head.content_type, headed=False))

    def abandon(self, error: StatusError) -> None:
        """Answer with an error and cancel the handler."""
        self.answer(error)
        stop(self._wire, self)

    def expire(self) -> None:
        """Hear that the deadline has passed."""
        self.deadline = None
        self.abandon(DeadlineExceeded("the deadline passed while the call was handled"))

    def on_reset(self, code: int, reason: str, *, refused: bool) -> None:  # noqa: ARG002 - the caller is gone, whyever
        """Cancel the handler: nobody waits for its reply."""
        if self._inbox is not None:
            self._inbox.close()
        stop(self._wire, self)


class ServerStream(Duplex):
    """A streaming call, as its handler sees it."""

    def __init__(
        self, wire: Host, stream_id: int, head: RequestHead, handler: StreamHandler, deadline: float | None
    ) -> None:
        super().__init__(wire, stream_id)
        self.deadline = deadline
        self.task: asyncio.Task[None] | None = None
        self.inbox.encoding = head.encoding
        self._server = wire
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
        head, wire = self._request_head, self._server
        request = Request(head.path, head.metadata, head.content_type, deadline=self.deadline, peer=wire.peer)
        wire.start(self, self._run, request)

    async def _run(self, request: Request) -> None:
        await self._handler(request, self)

    def head(self) -> bytes:
        """Return the response's headers before its first message."""
        if self._headed:
            return b""
        self._headed = True
        return self.connection.headers(self, answers.head(self._request_head.content_type))

    async def end(self) -> None:
        """Do nothing: the response ends with its handler."""

    def cancel(self) -> None:
        """Give the call up."""
        self.abandon(Cancelled("the server gave the call up"))

    def give_up(self, error: StatusError) -> None:
        """Answer with an error because of what the client sent; the handler gets it from `receive`."""
        self.fail(error)
        self.answer(error)

    def complete(self, result: None, trailers: Mapping[str, str] | None) -> None:  # noqa: ARG002 - a stream returns none
        """End the response well."""
        if self.closed or self.sent_end:
            return
        block = answers.ok(trailers)
        if not self._headed:
            self.connection.sender.write(self.head())
        answers.finish(self, block)
        self.inbox.close()

    def answer(self, error: StatusError) -> None:
        """End the call with an error; a message that waits for the client's window isn't sent."""
        self.inbox.close()
        if self.closed or self.sent_end:
            return
        self.connection.sender.forget(self)
        answers.finish(self, answers.failure(error, self._request_head.content_type, headed=self._headed))
        self._headed = True

    def abandon(self, error: StatusError) -> None:
        """Answer with an error and cancel the handler."""
        self.answer(error)
        self.fail(error)
        stop(self._server, self)

    def expire(self) -> None:
        """Hear that the deadline has passed."""
        self.deadline = None
        self.abandon(DeadlineExceeded("the deadline passed while the call was handled"))

    def on_reset(self, code: int, reason: str, *, refused: bool) -> None:  # noqa: ARG002 - the caller is gone, whyever
        """Cancel the handler: the caller is gone."""
        self.fail(Cancelled(reason))
        stop(self._server, self)


class Refusal(Stream):
    """A call that isn't handled: an answer to give, at once or, to what isn't gRPC, when the request has ended."""

    __slots__ = ("_at_end", "_block", "_seen", "deadline")

    def __init__(self, wire: Host, stream_id: int, block: bytes, *, at_end: bool) -> None:
        super().__init__(wire.connection, stream_id)
        self.deadline = None
        self._block = block
        self._at_end = at_end
        self._seen = 0

    def on_headers(self, headers: Headers, *, end: bool) -> None:  # noqa: ARG002 - the wire has read them
        """Answer, unless there is more to come."""
        if end or not self._at_end:
            self._answer()

    def on_data(self, payload: bytes, *, end: bool) -> None:
        """Answer once there is no more, or too much, to come."""
        self._seen += len(payload)
        if end or self._seen > _PATIENCE:
            self._answer()

    def _answer(self) -> None:
        if not self.sent_end:
            answers.finish(self, self._block)

    def on_reset(self, code: int, reason: str, *, refused: bool) -> None:
        """Have nothing to do."""


def stop(wire: Host, call: Call) -> None:
    """Cancel a call's handler."""
    if call.task is not None and not call.task.done():
        # A task that is cancelled before it first runs never comes to its own end.
        call.task.add_done_callback(lambda _: wire.retire(call))
        call.task.cancel()
