"""Asking: a unary call as a NATS request, and what comes back."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from ...errors import Internal, ResourceExhausted, StatusError, Unreachable, status_error
from ...grpc.metadata import NONE
from .words import CONTENT_TYPE, DETAILS, HEAD, MESSAGE, METHOD, MORE, OWN, REFUSED, STATUS, TAIL, TIMEOUT, lines

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from ...context import ReplyMetadata
    from ...nats.wire import RawHeaders
    from ...transport import Metadata

#: Blocks of headers that are kept.
_REMEMBERED: Final = 1024


class Writer:
    """Writes the headers of requests; what calls of one method share is written once."""

    def __init__(self) -> None:
        self._shared: dict[tuple[str, str], bytes] = {}

    def head(self, method: str, content_type: str, metadata: Metadata | None, timeout: float) -> bytes:
        """Return the lines; the timeout comes last, so that the server knows the others again.

        Raises:
            Internal: the metadata can't be sent.
        """
        shared = self._shared.get((method, content_type))
        if shared is None:
            if not (method.isprintable() and content_type.isprintable()):
                raise Internal(f"{method!r} can't be called as {content_type!r}")
            if len(self._shared) >= _REMEMBERED:
                self._shared.clear()
            shared = f"{METHOD}: {method}\r\n{CONTENT_TYPE}: {content_type}\r\n".encode()
            self._shared[method, content_type] = shared
        own = lines(metadata) if metadata else b""
        if b"ketch-" in own and any(name.startswith(OWN) for name in metadata or ()):
            raise Internal(f"metadata whose name begins with {OWN} can't be sent: it is the transport's own")
        return b"%b%b%b: %d\r\n" % (shared, own, TIMEOUT.encode(), max(1, round(timeout * 1000)))


class Ask:
    """One call's request, and its reply."""

    __slots__ = ("_limit", "_parts", "_size", "_to", "received", "reply")

    def __init__(self, to: str, reply: asyncio.Future[bytes], limit: int, received: ReplyMetadata | None) -> None:
        self.reply = reply
        self.received = received
        self._to = to
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def take(self, headers: RawHeaders | None, body: bytes, reply: bytes) -> None:  # noqa: ARG002 - a taker's signature
        """Take a message that came for it."""
        if self.reply.done():
            return
        self._size += len(body)
        if self._size > self._limit:
            self.fail(ResourceExhausted(f"a reply of more than {self._limit} bytes"))
        elif headers is None and not self._parts:
            self.reply.set_result(body)
        else:
            self._take_slowly(headers, body)

    def fail(self, error: StatusError) -> None:
        """End it with an error, unless it has ended."""
        if not self.reply.done():
            self.reply.set_exception(error)
            self.reply.exception()  # its caller may be gone

    def _take_slowly(self, headers: RawHeaders | None, body: bytes) -> None:
        self._parts.append(body)
        if headers is None:
            self.reply.set_result(b"".join(self._parts))
            return
        if headers.status:
            self.fail(Unreachable(f"nobody listens on {self._to}"))
            return
        if MORE in headers:
            return
        head, tail = _metadata(headers, HEAD), _metadata(headers, TAIL)
        if self.received is not None:
            self.received.fill(head, tail)
        code = headers.get(STATUS, "0")
        if code == "0":
            self.reply.set_result(b"".join(self._parts))
        else:
            self.fail(_status(headers, code, tail))


def _metadata(headers: RawHeaders, prefix: str) -> Mapping[str, str]:
    found = {name[len(prefix) :]: value for name, value in headers.items() if name.startswith(prefix)}
    return found or NONE


def _status(headers: RawHeaders, code: str, tail: Mapping[str, str]) -> StatusError:
    message = unquote(headers.get(MESSAGE, ""))
    if REFUSED in headers:
        return Unreachable(message)
    try:
        details = [base64.b64decode(part, validate=True) for part in headers.get(DETAILS, "").split(",") if part]
    except binascii.Error:
        details = []
    return status_error(int(code) if code.isdecimal() else 2, message, details=details, metadata=tail)
