"""go-micro's manner of gRPC: how its clients name methods, and how both of its sides tell errors.

Its client calls `/<registry's name of the service>.Greeter/Hello`, whatever the contract's package, and its server goes
by `Greeter/Hello` alone (util/grpc of go-micro v5). Its errors are `errors.Error {id, code, detail, status}`, the code
one of HTTP's: as JSON in the status's message, and as a protobuf message the first of its details (server/grpc,
client/grpc).

A caller is known as go-micro's by the metadata `x-content-type`, which only its client sends. Only such a caller gets
methods and errors so: everybody else has gRPC as it is written.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec

from ..errors import Code, status_error
from . import proto

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..errors import StatusError

#: The metadata that go-micro's client sends with each call, and no other does.
CALLER: Final = "x-content-type"

_ANY: Final = b"type.googleapis.com/errors.Error"
_ID, _CODE, _DETAIL, _STATUS = 1, 2, 3, 4  # the fields of errors.Error; an Any's are 1 and 2
#: Characters of an error's text that travel in JSON, whatever their escapes, so that it isn't cut off in the middle.
_LONGEST: Final = 600
_NANOSECONDS: Final = 1e9
#: Digits of a timeout: as gRPC's own, that is no more than some years.
_DIGITS: Final = 18

#: What our codes are there. Its own table (server/grpc/error.go) knows eleven; for the rest what comes nearest in HTTP.
_TO_HTTP: Final = {
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 408,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 412,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 416,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
#: What a code of HTTP's means where its status says UNKNOWN, as it does for all that aren't in its table.
_FROM_HTTP: Final = {
    405: Code.UNIMPLEMENTED,
    416: Code.OUT_OF_RANGE,
    422: Code.INVALID_ARGUMENT,
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELLED,
    502: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


class _Error(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    id: str = ""
    code: int = 0
    detail: str = ""
    status: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Error).decode


def short_paths(paths: Iterable[str]) -> dict[str, str]:
    """Return the full path for each `Greeter/Hello` that only one of them ends in."""
    found: dict[str, str] = {}
    twice = set()
    for path in paths:
        short = _shorten(path)
        if short in found:
            twice.add(short)
        found[short] = path
    return {short: path for short, path in found.items() if short not in twice}


def meant(path: str, metadata: Mapping[str, str], shorts: Mapping[str, str]) -> str:
    """Return the path of the method that a go-micro client means; "" for none, and for any other client."""
    return shorts.get(_shorten(path), "") if CALLER in metadata else ""


def _shorten(path: str) -> str:
    service, _, method = path.removeprefix("/").partition("/")
    return f"{service.rpartition('.')[2]}/{method}"


def timeout(metadata: Mapping[str, str]) -> float | None:
    """Return the seconds that a go-micro client gives a call that has no `grpc-timeout`; None for no end."""
    text = metadata.get("timeout", "") if CALLER in metadata else ""
    nanoseconds = int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else 0
    return nanoseconds / _NANOSECONDS if nanoseconds else None


def told(error: StatusError, path: str, metadata: Mapping[str, str]) -> StatusError:
    """Return an error as its caller understands it: as go-micro's, if it is go-micro's client.

    The error's own details come after go-micro's: its client looks at the first, and panics at others.
    """
    if CALLER not in metadata:
        return error
    code = _TO_HTTP.get(error.code, 500)
    service = path.removeprefix("/").partition("/")[0]
    said = _Error(service, code, error.message[:_LONGEST], _PHRASES.get(code, ""))
    packed = proto.chunk(1, _ANY) + proto.chunk(2, _pack(said))
    return status_error(error.code, _encode(said).decode(), details=(packed, *error.details), metadata=error.metadata)


def heard(code: int, message: str, details: Sequence[bytes]) -> tuple[int, str]:
    """Return the code and message of a status; what go-micro has said in it is read, the rest left as it is."""
    error = _detail(details[0]) if details else _parse(message)
    if error is None or not error.code:
        return code, message
    meant = _FROM_HTTP.get(error.code, code) if code == Code.UNKNOWN else code
    return meant, error.detail or error.status or error.id


def _parse(message: str) -> _Error | None:
    if not message.startswith("{"):
        return None
    try:
        return _decode(message)
    except msgspec.MsgspecError:
        return None


def _detail(packed: bytes) -> _Error | None:
    try:
        found = dict(proto.fields(packed))
        value = found.get(2, b"")
        if found.get(1) != _ANY or not isinstance(value, bytes):
            return None
        return _unpack(dict(proto.fields(value)))
    except ValueError:
        return None


def _pack(error: _Error) -> bytes:
    return b"".join(
        (
            proto.chunk(_ID, error.id.encode("utf-8", "replace")),
            proto.number(_CODE, error.code),
            proto.chunk(_DETAIL, error.detail.encode("utf-8", "replace")),
            proto.chunk(_STATUS, error.status.encode()),
        )
    )


def _unpack(found: Mapping[int, int | bytes]) -> _Error:
    def text(field: int) -> str:
        value = found.get(field, b"")
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""

    code = found.get(_CODE, 0)
    return _Error(text(_ID), code if isinstance(code, int) else 0, text(_DETAIL), text(_STATUS))
