"""ServerWire: one connection that a listener accepted."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ..errors import StatusError, Unavailable, Unimplemented
from ..http2.frames import PREFACE
from ..peer import Peer
from . import answers, gomicro
from .heads import request_head
from .lifetime import Lifetime
from .refusal import Refusal, Stranger
from .server_stream import ServerStream
from .serving import Call, Host, serve
from .unary_call import UnaryCall
from .wire import spawner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ..errors import ProtocolError
    from ..http2.compression import Headers
    from ..http2.stream import Stream
    from ..transport import Request, Route
    from .heads import RequestHead
    from .tuning import Tuning

log = logging.getLogger("ketch.grpc")

_HTTP1: Final = re.compile(rb"[A-Z]{3,10} [^\r\n]* HTTP/1\.|[A-Z]{3,10} /")
_HTTP1_BODY: Final = b"This port speaks gRPC, over HTTP/2 only.\n"
_HTTP1_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_HTTP1_BODY), _HTTP1_BODY)
)
_TLS_HANDSHAKE: Final = b"\x16\x03"
#: Seconds that a peer has to say in what protocol it speaks.
_HELLO: Final = 10.0
#: Seconds for a peer to hear that we are stopping, and for cancelled handlers to end.
_WARNING: Final = 1.0
_DRAINED: Final = b"ketchend"
#: Handlers for each stream that may be open: those of streams that were just reset stand in no honest client's way.
_HANDLERS: Final = 2


class Wires(set["ServerWire"]):
    """The connections of one listener.

    Attributes:
        closed: no more are taken.
    """

    closed = False


class ServerWire(Host):
    """One client's connection.

    Args:
        tuning: how it behaves.
        loop: what it runs in.
        routes: how each method is served.
        shorts: the names that go-micro's clients have for methods; see `gomicro.short_paths`.
        wires: where it is listed while it is open.

    Attributes:
        running: the calls whose handlers haven't ended.
        known: whether the peer has said what it speaks.
    """

    def __init__(
        self,
        tuning: Tuning,
        loop: asyncio.AbstractEventLoop,
        routes: Mapping[str, Route],
        shorts: Mapping[str, str],
        wires: Wires,
    ) -> None:
        super().__init__(tuning, loop, client=False)
        self.running: set[Call] = set()
        self._routes = routes
        self._shorts = shorts
        self._wires = wires
        self._first = b""
        self.known = False
        self._lifetime: Lifetime | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._stopping = False
        self._spawn = spawner(loop)
        self._held: deque[asyncio.Future[None]] = deque()
        self._idle = asyncio.Event()
        self._warned = asyncio.Event()

    # the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hear that there is a socket."""
        super().connection_made(transport)
        if self._wires.closed:  # it was under way when the listener stopped
            self.abort()
        if (secured := transport.get_extra_info("ssl_object")) is not None:
            self.peer = Peer.proved(self.peer, secured.getpeercert)
        self._wires.add(self)
        tuning = self.tuning
        if tuning.max_connection_age or tuning.max_connection_idle:
            self._lifetime = Lifetime(self.loop, tuning, self.connection.streams, self.drain, self.finish)
        self._patience = self.loop.call_later(_HELLO, self._lose_patience)

    def data_received(self, data: bytes) -> None:
        """Take bytes; the first ones tell what the peer speaks."""
        if not self.known:
            self._first = (self._first + data)[:64]
            if self._turn_away():
                return
        super().data_received(data)
        if self._held:
            self._go_on()

    def resume_writing(self) -> None:
        """Hear that the socket takes more."""
        super().resume_writing()
        if self._held:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that the socket is closed."""
        self._calm()
        if self._lifetime is not None:
            self._lifetime.stop()
        self._wires.discard(self)
        self._warned.set()
        self._idle.set()
        super().connection_lost(exc)

    def on_settings(self) -> None:
        """Hear that the peer speaks HTTP/2."""
        self.known = True
        self._calm()

    def on_pong(self, payload: bytes) -> None:
        """Hear that the peer has read that we are stopping."""
        if payload == _DRAINED:
            self._warned.set()

    def on_end(self, error: ProtocolError) -> None:
        """Close a connection whose peer broke the rules."""
        log.warning("closed the connection from %s: %s", self.peer, error)
        self.close()

    def _calm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        log.warning("closed the connection from %s: it said nothing in HTTP/2 for %g s", self.peer, _HELLO)
        self.connection.lose("no HTTP/2")
        self.close()

    def _turn_away(self) -> bool:
        """Close the connection of a peer that speaks something that we know and don't speak."""
        first = self._first
        if PREFACE.startswith(first[: len(PREFACE)]):
            return False
        if first.startswith(_TLS_HANDSHAKE):
            said, answer = "TLS, this port plain text", b""
        elif _HTTP1.match(first):
            said, answer = "HTTP/1", _HTTP1_ANSWER
        else:
            return False
        log.warning("closed the connection from %s: it speaks %s; this is a gRPC port", self.peer, said)
        self.known = True
        self.connection.lose("no HTTP/2")
        self.connection.sender.take()
        if answer:
            self.connection.sender.write(answer)
        self.close()
        return True

    # calls

    def on_stream(self, stream_id: int, headers: Headers) -> Stream:
        """Choose how a call is handled."""
        head: RequestHead = headers.memo or request_head(headers)
        route = self._routes.get(head.path)
        if not head.content_type:
            return Stranger(self, stream_id, head.http_method)
        if head.problem is not None:
            return self._refuse(stream_id, head.content_type, head.problem)
        if route is None:
            if not (path := gomicro.meant(head.path, head.metadata, self._shorts)):
                return self._refuse(stream_id, head.content_type, Unimplemented(f"{head.path} isn't served here"))
            # Its name counts from here on, whoever looks at it: rules that middleware has for it must hold.
            head.path = path
            route = self._routes[path]
        deadline = None
        if head.timeout is not None:
            deadline = time.monotonic() + head.timeout
            self.deadlines.watch(deadline)
        if route.unary is not None:
            return UnaryCall(self, stream_id, head, route.unary, deadline)
        assert route.stream is not None  # noqa: S101 - a route has exactly one handler
        return ServerStream(self, stream_id, head, route.stream, deadline)

    def _refuse(self, stream_id: int, content_type: str, error: StatusError) -> Refusal:
        return Refusal(self, stream_id, answers.failure(error, content_type, headed=False))

    def start(self, call: Call, handler: Callable[[Request], Awaitable[Any]], request: Request) -> None:
        """Handle a call in a task of its own."""
        if len(self.running) >= _HANDLERS * self.tuning.limits.max_streams:
            # Streams that were reset are gone at once, their handlers only soon: both count (CVE-2023-44487).
            call.refuse()
            return
        self.running.add(call)
        call.task = self._spawn(serve(self, call, handler, request))

    async def has_room(self) -> None:
        """Wait until the client has taken enough of the replies it has already.

        Those that wait go on one by one: each may have a large reply.
        """
        while self.connection.sender.waiting > self.tuning.unsent:
            turn = self.loop.create_future()
            self._held.append(turn)
            await turn

    def _go_on(self) -> None:
        while self._held and self.connection.sender.waiting <= self.tuning.unsent:
            turn = self._held.popleft()
            if not turn.done():  # its call was cancelled, else
                turn.set_result(None)
                return

    def retire(self, call: Call) -> None:
        """Forget a call whose handler has ended."""
        self.running.discard(call)
        if self._held:
            self._go_on()
        if self._stopping:
            self._check_idle()

    # stopping

    def on_ended_stream(self) -> None:
        """Hear that a stream has ended."""
        self._check_idle()

    async def drain(self) -> None:
        """Send the peer elsewhere, and wait until the calls in hand are done."""
        self._stopping = True
        if not self.known:
            # Clients wait for our first words before they call, and have not got them.
            self.connection.close("stopping")
            self.close()
            return
        # Two steps, so that calls which are under way when the peer hears of it are still served (RFC 9113, 6.8).
        self.connection.announce_end()
        self.connection.ping(_DRAINED)
        with suppress(TimeoutError):
            async with asyncio.timeout(_WARNING):
                await self._warned.wait()
        self.connection.refuse_more()
        self._idle.clear()  # it may have been idle for a moment, and calls have come since
        self._check_idle()
        if not self.lost.done():
            await self._idle.wait()

    async def finish(self) -> None:
        """Cancel what is left, and close."""
        tasks = [call.task for call in self.running if call.task is not None]
        for call in list(self.running):
            call.abandon(Unavailable("the server is stopping"))
        self.connection.close("stopped")
        self.close()
        await self.lost
        if tasks:
            await asyncio.wait(tasks, timeout=_WARNING)

    def _check_idle(self) -> None:
        if self._stopping and not self.running and not self.connection.streams:
            self._idle.set()
