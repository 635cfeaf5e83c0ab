"""Answering: a unary call that came in as a NATS request."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ...errors import Cancelled, DeadlineExceeded, ResourceExhausted, StatusError, Unavailable, Unimplemented, Unknown
from ...transport import Request
from .words import CONTENT_TYPE, DETAILS, HEAD, MESSAGE, METHOD, MORE, REFUSED, STATUS, TAIL, TIMEOUT, encoded, lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...nats.wire import RawHeaders
    from ...transport import Route, UnaryHandler
    from .post import Post

log = logging.getLogger("ketch.nats")

#: Calls in hand; further ones are refused unseen.
MOST: Final = 16_384
#: Heads of requests that are remembered, and the bytes of one at most.
_REMEMBERED: Final = 1024
_LONGEST_HEAD: Final = 4096
#: What NATS's limit for a message leaves to the headers of ours, and what the first line takes of it.
_SPARE: Final = 8192
_FIRST: Final = 64
_TIMEOUT: Final = f"\r\n{TIMEOUT}: ".encode()
_END: Final = b"\r\n\r\n"


class Head:
    """What the requests of one method and caller have in common."""

    __slots__ = ("content_type", "metadata", "method")

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.method = headers.get(METHOD, "")
        self.content_type = headers.get(CONTENT_TYPE, "application/protobuf")
        own = {METHOD, CONTENT_TYPE, TIMEOUT}
        # Calls share it.
        self.metadata = MappingProxyType({name: value for name, value in headers.items() if name not in own})


class Call:
    """A call in hand."""

    __slots__ = ("abandoned", "begun", "reply", "request", "task", "timer")

    def __init__(self, request: Request, reply: str) -> None:
        self.request = request
        self.reply = reply
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.abandoned: StatusError | None = None
        self.begun = False

    def abandon(self, error: StatusError) -> None:
        """Cancel its handler, and answer with an error."""
        if self.abandoned is None and self.task is not None:
            self.abandoned = error
            if self.begun:
                self.task.cancel()  # one that was cancelled before it first ran would never come to its own end


class Answering:
    """The calls of one listener that came as requests.

    Attributes:
        calls: in hand, by the subject that their reply goes to.
    """

    def __init__(self, post: Post, routes: Mapping[str, Route], accepted: int, limit: int) -> None:
        self.calls: dict[str, Call] = {}
        self._post = post
        self._routes = routes
        self._accepted = accepted
        self._limit = limit
        self._heads: dict[bytes, Head] = {}
        self._loop = asyncio.get_running_loop()

    def take(self, headers: RawHeaders, body: bytes, reply: str) -> None:
        """Handle a request in a task of its own, or say why not."""
        if reply in self.calls:
            return  # an answer could be meant for either; our callers never do it
        head, timeout = self._read(headers)
        if len(body) > self._accepted:
            self.refuse(reply, ResourceExhausted(f"a request of {len(body)} bytes, more than {self._accepted}"))
            return
        route = self._routes.get(head.method)
        if route is None or route.unary is None:
            what = "isn't served here" if route is None else "takes or gives a stream, which needs a pipe"
            self.refuse(reply, Unimplemented(f"{head.method[:200]} {what}"))
            return
        if len(self.calls) >= MOST:
            self.refuse(reply, Unavailable(f"{MOST} calls are in hand"), unseen=True)
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        request = Request(head.method, head.metadata, head.content_type, deadline, f"nats:{reply}", body)
        call = self.calls[reply] = Call(request, reply)
        call.task = self._loop.create_task(self._handle(call, route.unary))
        if timeout is not None:
            call.timer = self._loop.call_later(timeout, call.abandon, DeadlineExceeded("the deadline passed"))

    def cancel(self, reply: str) -> None:
        """Hear that a caller wants no answer any more."""
        call = self.calls.get(reply)
        if call is not None:
            call.abandon(Cancelled("the caller gave the call up"))

    async def drain(self, grace: float) -> None:
        """Wait for the calls in hand; what is left after so many seconds fails as `Unavailable`."""
        tasks = {call.task for call in self.calls.values() if call.task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for call in list(self.calls.values()):
            call.abandon(Unavailable("the service has stopped"))
        if left := {task for task in tasks if not task.done()}:
            await asyncio.wait(left, timeout=1.0)

    def refuse(self, reply: str, error: StatusError, *, unseen: bool = False) -> None:
        """Answer with an error before any handler saw the request."""
        said = _status(error) + (f"{REFUSED}: 1\r\n".encode() if unseen else b"")
        self._post.send(reply, b"", headers=said)

    def _read(self, headers: RawHeaders) -> tuple[Head, float | None]:
        shared, found, said = headers.raw.rpartition(_TIMEOUT)
        digits = said.removesuffix(_END)
        if not found or len(shared) > _LONGEST_HEAD or digits == said or not digits.isdigit():
            # Only where nothing else follows the timeout does what precedes it tell the whole head.
            return Head(headers), _seconds(headers.get(TIMEOUT, ""))
        head = self._heads.get(shared)
        if head is None:
            head = Head(headers)
            if len(self._heads) >= _REMEMBERED:
                self._heads.clear()
            self._heads[shared] = head
        return head, _seconds(digits.decode())

    async def _handle(self, call: Call, handler: UnaryHandler) -> None:
        request = call.request
        call.begun = True
        try:
            if call.abandoned is None:
                self._reply(call, await handler(request))
            else:
                self._fail(call, call.abandoned)
        except StatusError as error:
            self._fail(call, error)
        except asyncio.CancelledError:
            self._fail(call, call.abandoned or Cancelled("the handler was cancelled"))
            if call.abandoned is None:
                raise
        except Exception:
            log.exception("%s: the handler failed", request.method)
            self._fail(call, Unknown("the handler failed; its service's log has the reason"))
        finally:
            if call.timer is not None:
                call.timer.cancel()
            self.calls.pop(call.reply, None)

    def _reply(self, call: Call, body: bytes) -> None:
        request, post = call.request, self._post
        said = b""
        if request.sent_metadata or request.sent_trailers:
            said = lines(request.sent_metadata or {}, HEAD) + lines(request.sent_trailers or {}, TAIL)
        if len(body) > self._limit:
            raise ResourceExhausted(f"a reply of {len(body)} bytes, more than {self._limit}")
        _check_headers(said, _SPARE)
        size = post.link.max_payload - _SPARE
        while len(body) > size:
            post.send(call.reply, body[:size], headers=f"{MORE}: 1\r\n".encode())
            body = body[size:]
        post.send(call.reply, body, headers=said)

    def _fail(self, call: Call, error: StatusError) -> None:
        request = call.request
        try:
            said = _status(error) + lines(request.sent_metadata or {}, HEAD)
            said += lines({**(request.sent_trailers or {}), **error.metadata}, TAIL)
            _check_headers(said, self._post.link.max_payload)
        except StatusError as broken:
            said = _status(broken)
        self._post.send(call.reply, b"", headers=said)


def _check_headers(said: bytes, most: int) -> None:
    # NATS cuts the connection of whoever sends more than it takes, and all calls with it.
    if len(said) > most - _FIRST:
        raise ResourceExhausted(f"metadata and details of {len(said)} bytes, more than {most - _FIRST}")


def _seconds(said: str) -> float | None:
    return int(said) / 1000 if said.isascii() and said.isdigit() and len(said) <= 12 else None  # noqa: PLR2004 - 30 years


def _status(error: StatusError) -> bytes:
    details = ",".join(base64.b64encode(detail).decode() for detail in error.details)
    said = f"{STATUS}: {int(error.code)}\r\n{MESSAGE}: {encoded(error.message)}\r\n"
    return (said + (f"{DETAILS}: {details}\r\n" if details else "")).encode()
