"""Status: codes and errors, grpcio's and ketch's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc.aio

from ..context import from_base64
from ..errors import Code, StatusError, status_error
from ..grpc import status as wire
from .metadata import DETAILS, stock

if TYPE_CHECKING:
    from collections.abc import Mapping

STOCK: Final = {code.value[0]: code for code in grpc.StatusCode}


def number(code: grpc.StatusCode | int) -> int:
    """Return a status code's number; grpcio takes plain numbers as well."""
    return code if isinstance(code, int) else int(code.value[0])


def error_of(code: int, details: str, trailers: Mapping[str, str | bytes]) -> StatusError:
    """Return what ketch raises for a status; a `google.rpc.Status` among the trailers gives the error's details."""
    packed = trailers.get(DETAILS)
    return status_error(code, details, details=_unpacked(packed) if packed else ())


def trailers_of(error: StatusError) -> dict[str, str | bytes]:
    """Return the trailing metadata that came with an error, `grpc-status-details-bin` for its details among it."""
    found = dict(error.metadata)
    if error.details:
        found[DETAILS] = wire.pack(error)
    return found


def code_of(error: StatusError | None) -> grpc.StatusCode:
    """Return grpcio's code of an error, OK for none."""
    return STOCK[Code.OK if error is None else error.code]


def rpc_error(
    error: StatusError, initial: grpc.aio.Metadata, trailing: grpc.aio.Metadata | None = None
) -> grpc.aio.AioRpcError:
    """Return what grpcio raises for an error."""
    said = stock(trailers_of(error)) if trailing is None else trailing
    return grpc.aio.AioRpcError(code_of(error), initial, said, error.message, f"ketch: {type(error).__name__}")


def _unpacked(packed: str | bytes) -> tuple[bytes, ...]:
    try:
        return wire.unpack(packed if isinstance(packed, bytes) else from_base64(packed)[0])
    except ValueError:
        return ()  # the code and the message are what matters, and they are there
