"""NatsChannel: calls to one subject."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from ...errors import Cancelled, DeadlineExceeded, ResourceExhausted, Unavailable, Unreachable
from ...grpc.channel import GrpcChannel
from ...transport import Channel
from .asking import Ask, Writer
from .pipe import Pipe
from .words import PIPE, SERVICES, cancels

if TYPE_CHECKING:
    from ...context import ReplyMetadata
    from ...transport import Metadata, Stream
    from .config import Settings
    from .post import Post

#: What NATS's limit for a message leaves to the headers of ours; larger requests go over a pipe, in pieces.
_SPARE: Final = 16_384
#: What the headers' first line takes of it.
_FIRST: Final = 64


class NatsChannel(Channel):
    """A unary call with a deadline is a request, which NATS hands to one of the instances that listen there.

    All else goes over a pipe, which leads to one of them for as long as it lasts: streams, requests larger than a
    message may be, requests to be compressed, and calls without a deadline, since only a pipe tells that the other end
    has died.
    """

    def __init__(self, post: Post, settings: Settings, address: str, writer: Writer) -> None:
        self._post = post
        self._address = address
        self._writer = writer
        self._tuning = settings.tuning
        self._limit = settings.tuning.max_message_size
        self._most = settings.tuning.max_send_size or settings.tuning.max_message_size
        self._asks: dict[str, Ask] = {}
        self._closed = False
        self.shared = address.startswith(f"{SERVICES}.")
        self._pipes = GrpcChannel(address, settings.tuning, dial=self._dial)
        post.link.on_loss(self._lost)

    async def unary(
        self,
        method: str,
        body: bytes,
        *,
        content_type: str,
        metadata: Metadata | None = None,
        timeout: float | None = None,
        received: ReplyMetadata | None = None,
        compress: bool | None = None,
    ) -> bytes:
        """Make one call and return its reply's body; see `transport.Channel`."""
        if timeout is None or compress or len(body) + _SPARE > self._post.link.max_payload or self._closed:
            return await self._pipes.unary(
                method,
                body,
                content_type=content_type,
                metadata=metadata,
                timeout=timeout,
                received=received,
                compress=compress,
            )
        ask, inbox, timer = self._send(method, body, content_type, metadata, timeout, received)
        try:
            return await ask.reply
        except asyncio.CancelledError:
            self._cancel(inbox)
            raise
        finally:
            timer.cancel()
            self._post.forget(inbox)
            self._asks.pop(inbox, None)

    def _send(
        self,
        method: str,
        body: bytes,
        content_type: str,
        metadata: Metadata | None,
        timeout: float,
        received: ReplyMetadata | None,
    ) -> tuple[Ask, str, asyncio.TimerHandle]:
        if timeout <= 0:
            raise DeadlineExceeded("the deadline passed before the call was made")
        if len(body) > self._most:
            raise ResourceExhausted(f"a request of {len(body)} bytes, more than {self._most}")
        head = self._writer.head(method, content_type, metadata, timeout)
        if len(head) > _SPARE - _FIRST:
            raise ResourceExhausted(f"metadata of {len(head)} bytes, more than {_SPARE - _FIRST}")
        if not self._post.link.connected:
            raise Unreachable(f"{self._address}: the connection to NATS is lost")
        loop = asyncio.get_running_loop()
        ask = Ask(self._address, loop.create_future(), self._limit, received)
        inbox = self._post.expect(ask.take)
        self._asks[inbox] = ask
        self._post.send(self._address, body, reply=inbox, headers=head)
        return ask, inbox, loop.call_later(timeout, self._expire, ask)

    async def stream(
        self,
        method: str,
        *,
        content_type: str,
        metadata: Metadata | None = None,
        timeout: float | None = None,
        compress: bool | None = None,
    ) -> Stream:
        """Start a streaming call; see `transport.Channel`."""
        return await self._pipes.stream(
            method, content_type=content_type, metadata=metadata, timeout=timeout, compress=compress
        )

    async def ready(self, timeout: float | None = None) -> None:
        """Wait until a call could be sent; see `transport.Channel`."""
        await self._pipes.ready(timeout)

    async def close(self) -> None:
        """End the calls in hand; see `transport.Channel`."""
        self._closed = True
        self._post.link.forget(self._lost)
        for inbox, ask in list(self._asks.items()):
            self._cancel(inbox)
            ask.fail(Cancelled("the channel was closed"))
        await self._pipes.close()

    async def _dial(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        if not self._post.link.connected:
            raise Unreachable(f"{self._address}: the connection to NATS is lost")
        pipe = Pipe(self._post, protocol)
        try:
            self._post.send(self._address, b"", reply=pipe.here, headers=f"{PIPE}: 1\r\n".encode())
            await pipe.accepted
        except BaseException:
            pipe.abort()
            raise
        pipe.begin()
        return pipe

    def _cancel(self, inbox: str) -> None:
        self._post.send(cancels(self._address), inbox.encode())

    def _expire(self, ask: Ask) -> None:
        ask.fail(DeadlineExceeded("no reply before the deadline"))

    def _lost(self) -> None:
        for ask in list(self._asks.values()):
            ask.fail(Unavailable(f"{self._address}: the connection to NATS was lost"))
