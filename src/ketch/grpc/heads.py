"""Heads: what header lists say of a call. Worked out once for each header block and kept with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Internal, InvalidArgument, ResourceExhausted, StatusError, Unimplemented
from . import compression, gomicro, status, timeouts
from .content import from_wire
from .metadata import collect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..http2.compression import Headers


class RequestHead:
    """A request's headers.

    Attributes:
        content_type: the body's media type, "" where this is no gRPC call at all.
        http_method: `POST` for gRPC.
        timeout: in seconds, None for none.
        encoding: how messages flagged as compressed are.
        takes_gzip: the caller understands replies that are compressed.
        problem: what to answer instead of handling it.
    """

    __slots__ = ("content_type", "encoding", "http_method", "metadata", "path", "problem", "takes_gzip", "timeout")

    def __init__(self, headers: Headers) -> None:
        fields = dict(headers.fields)
        self.path = fields.get(":path", "")
        self.http_method = fields.get(":method", "")
        self.content_type = from_wire(fields.get("content-type", "")) if self.http_method == "POST" else ""
        self.metadata: Mapping[str, str] = collect(headers.fields)
        self.encoding = fields.get("grpc-encoding", compression.IDENTITY)
        self.takes_gzip = compression.GZIP in fields.get("grpc-accept-encoding", "").replace(" ", "").split(",")
        self.timeout: float | None = None
        self.problem: StatusError | None = None
        if headers.oversized:
            self.content_type = self.content_type or "application/protobuf"
            self.problem = ResourceExhausted("the request's headers are too large")
        elif self.encoding not in compression.KNOWN:
            self.problem = Unimplemented(
                f"compression {self.encoding[:40]!r} isn't supported: {compression.ACCEPTED} are"
            )
        if "grpc-timeout" in fields:
            self._read_timeout(fields["grpc-timeout"])
        else:
            self.timeout = gomicro.timeout(self.metadata)

    def _read_timeout(self, text: str) -> None:
        try:
            self.timeout = timeouts.parse(text)
        except ValueError as error:
            self.problem = InvalidArgument(str(error))


class ResponseHead:
    """A response's headers, or its trailers, or both at once ("trailers only").

    Attributes:
        informational: a 1xx status; the real response follows.
        ok: `grpc-status` is there, and is 0.
        error: what the call ended with if these headers end it, None for `ok`.
    """

    __slots__ = ("encoding", "error", "has_status", "informational", "metadata", "ok")

    def __init__(self, headers: Headers) -> None:
        fields = dict(headers.fields)
        http = fields.get(":status", "200")
        code = fields.get("grpc-status")
        self.informational = http.startswith("1")
        self.metadata: Mapping[str, str] = collect(headers.fields)
        self.encoding = fields.get("grpc-encoding", compression.IDENTITY)
        self.has_status = code is not None
        self.ok = code == "0"
        self.error: StatusError | None = None
        content_type = fields.get("content-type", "")
        if headers.oversized:
            self.error, self.ok = ResourceExhausted("the response's headers are too large"), False
        elif code is None and ":status" in fields and (http != "200" or not from_wire(content_type)):
            self.error = status.of_http(int(http), content_type)
        elif code is not None and not self.ok:
            self.error = status.read(code, headers.fields)
        elif self.encoding not in compression.KNOWN:
            self.error = Internal(f"the server compresses with {self.encoding[:40]!r}, which we didn't offer")

    def failure(self) -> StatusError:
        """Return the error that the call ends with; a new one each time, since raising one changes it."""
        error = self.error
        if error is None:
            return status.no_status()
        return type(error)(error.message, details=error.details, metadata=error.metadata)


def request_head(headers: Headers) -> RequestHead:
    """Return a request's head."""
    head: RequestHead | None = headers.memo
    if head is None:
        head = headers.memo = RequestHead(headers)
    return head


def response_head(headers: Headers) -> ResponseHead:
    """Return a response's head."""
    head: ResponseHead | None = headers.memo
    if head is None:
        head = headers.memo = ResponseHead(headers)
    return head
