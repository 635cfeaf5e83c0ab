"""Receiver: where other processes' events come in, as requests `POST /?id=<subscription>`."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from ...broker import Delivery
from ...errors import BrokerError
from ...grpc.address import Address, reachable
from .. import gomicro
from .head import MAX_HEAD, read_head

if TYPE_CHECKING:
    from ...mailbox import Mailbox
    from .head import Head

log = logging.getLogger("ketch.broker")

#: Bytes of a body that are read; base64 takes a third more than the event that is in it.
MAX_POST = 6 * 1024 * 1024

#: Connections at a time, and seconds that one may take for a request or between two.
_CONNECTIONS = 1024
_PATIENCE = 120.0

_REASONS = {200: "OK", 400: "Bad Request", 405: "Method Not Allowed", 411: "Length Required", 413: "Content Too Large"}


class Receiver:
    """Listens, and puts what comes into mailboxes.

    As go-micro's, it answers 200 whether anybody took an event or not.

    Attributes:
        mailboxes: the process's subscriptions, by their id in the registry.
        address: where others reach it, "" before `open`.
    """

    def __init__(self) -> None:
        self.mailboxes: dict[str, Mailbox] = {}
        self.address = ""
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self, wanted: Address) -> None:
        """Listen; port 0 is a free one.

        Raises:
            BrokerError: it can't.
        """
        host = wanted.host or "0.0.0.0"  # noqa: S104 - `:8080` means all of them
        try:
            self._server = await asyncio.start_server(self._accept, host, wanted.port, limit=MAX_HEAD)
        except OSError as error:
            raise BrokerError(f"http: can't listen on {wanted}: {error.strerror or error}") from error
        self.address = str(reachable(wanted.host, self._server.sockets[0].getsockname()[:2]))

    async def close(self) -> None:
        """Listen no more, and end the connections."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= _CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            while await self._serve(reader, writer):
                pass
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # a publisher that went away, or says nothing any more; it connects anew for its next event
        except asyncio.CancelledError:
            if self._server is not None:
                raise
        finally:
            self._connections.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; tell whether another one may follow."""
        async with asyncio.timeout(_PATIENCE):
            head = await read_head(reader)
            if head is None:
                return False
            problem = _problem(head)
            if problem:
                writer.write(_answer(problem, last=True))
                return False
            body = await reader.readexactly(head.length)
        code = 200 if await self._take(head, body) else 400
        writer.write(_answer(code, last=head.last))
        await writer.drain()
        return not head.last

    async def _take(self, head: Head, body: bytes) -> bool:
        query = head.first.split(" ")[1].partition("?")[2]
        ids = parse_qs(query, max_num_fields=8).get("id", [])
        mailbox = self.mailboxes.get(ids[0]) if ids else None
        if mailbox is None:
            return True
        message = gomicro.unwrap(mailbox.topic, body)
        if message is None:
            log.warning("somebody sent %d bytes to %s that are no event of go-micro's", len(body), mailbox.topic)
            return False
        delivery = Delivery(message)
        if not mailbox.offer((delivery,)):
            await mailbox.offer_patiently((delivery,))
        return True


def _problem(head: Head) -> int:
    """Return the status that refuses a request, 0 for none."""
    words = head.first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):  # noqa: PLR2004 - method, target, version
        return 400
    if words[0] != "POST":
        return 405
    if head.length < 0:
        return 411
    return 413 if head.length > MAX_POST else 0


def _answer(code: int, *, last: bool) -> bytes:
    close = "Connection: close\r\n" if last else ""
    return f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Length: 0\r\n{close}\r\n".encode()
