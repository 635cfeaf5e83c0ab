"""Status: how the end of a call crosses the wire, and what other endings mean."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from ..errors import Code, Internal, StatusError, status_error
from ..http2.codes import ErrorCode
from . import gomicro, proto
from .metadata import collect, fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..http2.compression import Field

#: Characters of a message that travel; a longer one is cut. Half of the header list that peers accept by default.
_LONGEST: Final = 4096
#: Bytes of details that travel; larger ones are left out, since the whole status would be lost otherwise.
_MOST_DETAILS: Final = 6144
_ESCAPED: Final = re.compile(rb"[^ -$&-~]")
_DETAILS: Final = 3  # the field of google.rpc.Status

_BY_HTTP: Final = {
    400: Code.INTERNAL,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.UNAVAILABLE,
}
_BY_RESET: Final = {
    ErrorCode.REFUSED_STREAM: Code.UNAVAILABLE,
    ErrorCode.CANCEL: Code.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
}


def of_http(status: int, content_type: str) -> StatusError:
    """Return the error for a response that isn't gRPC's."""
    what = f"HTTP status {status}, content type {content_type[:60]!r}: that is no gRPC server's answer"
    return status_error(_BY_HTTP.get(status, Code.UNKNOWN), what)


def of_reset(code: int, reason: str) -> StatusError:
    """Return the error for a stream that the server reset."""
    return status_error(_BY_RESET.get(code, Code.INTERNAL), reason)  # type: ignore[call-overload]  # any number


def trailers(error: StatusError) -> list[Field]:
    """Return the trailers that say how a call ended."""
    out: list[Field] = [("grpc-status", str(int(error.code)))]
    if error.message:
        out.append(("grpc-message", escape(error.message)))
    if error.details:
        packed = pack(error)
        if len(packed) <= _MOST_DETAILS:
            out.append(("grpc-status-details-bin", _to_text(packed)))
    return out + fields(error.metadata)


def read(code: str, headers: Sequence[Field]) -> StatusError:
    """Return the error that trailers speak of; their `grpc-status` isn't "0"."""
    found = dict(headers)
    number = int(code) if code.isascii() and code.isdigit() and len(code) < 4 else Code.UNKNOWN  # noqa: PLR2004 - 0 to 16
    message = unescape(found.get("grpc-message", ""))
    try:
        details = unpack(_from_text(found["grpc-status-details-bin"])) if "grpc-status-details-bin" in found else ()
    except ValueError:
        details = ()  # the code and the message are what matters, and they are there
    number, message = gomicro.heard(number, message, details)
    metadata: Mapping[str, str] = collect(headers)
    return status_error(number, message, details=details, metadata=metadata)


def escape(message: str) -> str:
    """Percent-encode a status message."""
    raw = message[:_LONGEST].encode("utf-8", "replace")
    return _ESCAPED.sub(lambda found: b"%%%02X" % found[0][0], raw)[: 2 * _LONGEST].decode("ascii")


def unescape(text: str) -> str:
    """Decode a percent-encoded status message; broken escapes stay as they are."""
    return unquote_to_bytes(text.encode("latin-1")).decode("utf-8", "replace")


def pack(error: StatusError) -> bytes:
    """Return `google.rpc.Status`: code = 1, message = 2, details = 3."""
    out = proto.number(1, int(error.code))
    if error.message:
        out += proto.chunk(2, error.message.encode("utf-8", "replace"))
    return out + b"".join(proto.chunk(_DETAILS, detail) for detail in error.details)


def unpack(data: bytes) -> tuple[bytes, ...]:
    """Return the details of a `google.rpc.Status`.

    Raises:
        ValueError: it is none.
    """
    return tuple(value for field, value in proto.fields(data) if field == _DETAILS and isinstance(value, bytes))


def _to_text(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


def _from_text(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("broken base64") from error


def no_status() -> StatusError:
    """Return the error for a response that ended without a status."""
    return Internal("the response ended without grpc-status")
