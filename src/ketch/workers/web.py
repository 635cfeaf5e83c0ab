"""Web: figures and health of all workers over HTTP, for Prometheus and probes. It answers GET, and closes.

/metrics   figures, in Prometheus's text format
/healthz   200 while the supervisor lives
/readyz    200 while at least one worker does its work; 503 with the reasons otherwise
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from ..errors import AddressUnavailable
from ..grpc.address import Address, reachable
from .prometheus import CONTENT_TYPE, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from .reports import Status

#: Seconds that one request may take, bytes that its head may have, and requests at a time.
_PATIENCE: Final = 5.0
_MAX_HEAD: Final = 8192
_MAX_REQUESTS: Final = 32
_PLAIN: Final = "text/plain; charset=utf-8"

#: Code with its reason, media type, body.
Answer = tuple[str, str, str]


class Web:
    """Serves on `host:port`; on `:port`, for this machine only.

    Args:
        wanted: the address.
        status: returns what is told.
    """

    def __init__(self, wanted: str, status: Callable[[], Status]) -> None:
        self.address = wanted
        self._status = status
        self._busy = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        wanted = Address.parse(self.address)
        host = wanted.host or "127.0.0.1"
        try:
            self._server = await asyncio.start_server(self._serve, host, wanted.port, limit=_MAX_HEAD)
        except OSError as error:
            raise AddressUnavailable(f"can't serve figures on {self.address}: {error.strerror or error}") from error
        self.address = str(reachable(host, self._server.sockets[0].getsockname()[:2]))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._busy >= _MAX_REQUESTS:
            writer.close()
            return
        self._busy += 1
        try:
            async with asyncio.timeout(_PATIENCE):
                with suppress(OSError, EOFError, asyncio.LimitOverrunError):  # no request, or too long a one
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(_response(head, self._answer(head)))
                    await writer.drain()
        except TimeoutError:
            writer.transport.abort()
        finally:
            self._busy -= 1
            writer.close()

    def _answer(self, head: bytes) -> Answer:
        method, _, rest = head.partition(b" ")
        path = rest.split(b" ", 1)[0].partition(b"?")[0]
        if method not in {b"GET", b"HEAD"}:
            return "405 Method Not Allowed", _PLAIN, "GET, please\n"
        if path == b"/healthz":
            return "200 OK", _PLAIN, "ok\n"
        if path == b"/metrics":
            return "200 OK", CONTENT_TYPE, text(self._status())
        if path == b"/readyz":
            return _readiness(self._status())
        return "404 Not Found", _PLAIN, "/metrics, /healthz or /readyz\n"


def _readiness(status: Status) -> Answer:
    lines = [
        f"worker {line.number}: {line.state}" + (f": {line.trouble}" if line.trouble else "") for line in status.workers
    ]
    body = "\n".join([f"{status.serving} of {len(lines)} workers serve", *lines, ""])
    return ("200 OK" if status.serving else "503 Service Unavailable"), _PLAIN, body


def _response(head: bytes, answer: Answer) -> bytes:
    code, kind, body = answer
    data = body.encode()
    lines = f"HTTP/1.1 {code}\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\nconnection: close\r\n\r\n"
    return lines.encode() + (b"" if head.startswith(b"HEAD ") else data)
