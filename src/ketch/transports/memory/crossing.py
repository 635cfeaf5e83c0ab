"""Crossing: what messages, metadata and statuses come to where there is a wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import Cancelled, ResourceExhausted, StatusError, status_error
from ...grpc.metadata import NONE, collect, fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...transport import Metadata


def ended() -> StatusError:
    """Return the error for sending on a call that has ended."""
    return Cancelled("the call has ended; nothing more can be sent")


def check_size(body: bytes, limit: int) -> None:
    """Check a message's size in bytes.

    Raises:
        ResourceExhausted: it is over the limit.
    """
    if len(body) > limit:
        raise ResourceExhausted(f"a message of {len(body)} bytes is larger than the limit of {limit}")


def crossed_metadata(metadata: Metadata | None) -> Mapping[str, str]:
    """Return metadata as it would come out of a wire."""
    return collect(fields(metadata)) if metadata else NONE


def crossed(error: StatusError) -> StatusError:
    """Return a status as it would come out of a wire: the code's own exception, and text in its metadata."""
    try:
        return status_error(error.code, error.message, details=error.details, metadata=crossed_metadata(error.metadata))
    except StatusError as broken:
        return broken
