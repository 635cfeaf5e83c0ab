"""NatsListener: subjects on which calls come in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ... import transport
from ...grpc.listener import see_off
from ...grpc.server import ServerWire, Wires
from .answering import Answering
from .pipe import Pipe
from .words import METHOD, PIPE, QUEUE, cancels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...nats.wire import RawHeaders, Received
    from ...transport import Route
    from .config import Settings
    from .post import Post

#: Pipes of one listener; further ones are refused.
_MOST = 10_000


class NatsListener(transport.Listener):
    """Takes requests and pipes on some subjects; see `transport.Listener`.

    Args:
        post: the connection, open.
        settings: of messages and pipes.
        routes: what is served.
        address: what others are told, one of `subjects`.
        subjects: whether other instances listen on each as well, so that NATS shares what comes there among them.
    """

    def __init__(
        self, post: Post, settings: Settings, routes: Mapping[str, Route], address: str, subjects: Mapping[str, bool]
    ) -> None:
        self._post = post
        self._tuning = settings.tuning
        self._routes = routes
        self._address = address
        self._subjects = subjects
        self._wires = Wires()
        most = settings.tuning.max_message_size
        self._answering = Answering(post, routes, most, settings.tuning.max_send_size or most)
        self._taking: list[object] = []
        self._hearing: list[object] = []
        self._stopped: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Listen.

        Raises:
            TransportError: the server doesn't answer.
        """
        link = self._post.link
        for subject, shared in self._subjects.items():
            self._hearing.append(await link.listen(cancels(subject), self._hear_cancels))
            self._taking.append(await link.listen(subject, self._take, queue=QUEUE if shared else ""))

    @property
    def address(self) -> str:
        """Where others reach it."""
        return self._address

    async def stop(self, grace: float) -> None:
        """Take no more calls, let those in hand finish; see `transport.Listener`."""
        if self._stopped is None:
            self._stopped = asyncio.ensure_future(self._stop(grace))
        await asyncio.shield(self._stopped)

    async def _stop(self, grace: float) -> None:
        link = self._post.link
        await link.leave(*self._taking)  # type: ignore[arg-type]  # drivers, which are the link's own affair
        self._wires.closed = True
        await asyncio.gather(self._answering.drain(grace), see_off(self._wires, grace))
        await link.leave(*self._hearing)  # type: ignore[arg-type]  # as above
        await link.flush()

    async def _take(self, batch: list[Received]) -> None:
        for _, headers, body, reply in batch:
            if not reply or headers is None:
                continue  # nobody to answer, or nothing said of what is wanted
            if PIPE in headers:
                self._accept(reply.decode("utf-8", "replace"))
            else:
                self._answering.take(headers, body, reply.decode("utf-8", "replace"))

    async def _hear_cancels(self, batch: list[Received]) -> None:
        for _, _, body, _ in batch:
            self._answering.cancel(body.decode("utf-8", "replace"))

    def _accept(self, there: str) -> None:
        if self._wires.closed or len(self._wires) >= _MOST:
            return  # whoever asked tries again elsewhere
        wire = ServerWire(self._tuning, asyncio.get_running_loop(), self._routes, {}, self._wires)
        pipe = Pipe(self._post, wire, there=there)
        self._post.send(there, b"", reply=pipe.here)
        pipe.begin()
        wire.peer = f"nats:{there}"


async def taken(post: Post, subject: str) -> bool:
    """Tell whether somebody answers requests on a subject."""
    heard: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def hear(headers: RawHeaders | None, _body: bytes, _reply: bytes) -> None:
        if not heard.done():
            heard.set_result(headers is None or not headers.status)

    inbox = post.expect(hear)
    try:
        post.send(subject, b"", reply=inbox, headers=f"{METHOD}: \r\n".encode())
        async with asyncio.timeout(1.0):
            return await heard
    except TimeoutError:
        return False
    finally:
        post.forget(inbox)
