"""Answers: the header blocks that a server sends. Those that recur are encoded once."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from ..errors import Internal, StatusError
from ..http2.codes import ErrorCode
from ..http2.compression import encode
from . import status
from .compression import ACCEPTED, GZIP
from .content import to_wire
from .metadata import fields

if TYPE_CHECKING:
    from ..http2.compression import Field
    from ..http2.stream import Stream
    from ..transport import Metadata

#: The block that ends a call well.
OK: Final = encode([("grpc-status", "0")])
#: What a client that doesn't speak gRPC gets (gRPC over HTTP/2, "Responses").
NOT_GRPC: Final = encode([(":status", "415"), ("content-type", "text/plain"), ("cache-control", "no-store")])
NOT_GRPC_BODY: Final = b"This port speaks gRPC.\n"


def _initial(content_type: str) -> list[Field]:
    return [(":status", "200"), ("content-type", to_wire(content_type)), ("grpc-accept-encoding", ACCEPTED)]


@lru_cache(maxsize=64)
def head(content_type: str) -> bytes:
    """Return the block that comes before the first message."""
    return encode(_initial(content_type))


def full_head(content_type: str, metadata: Metadata | None, *, compressed: bool) -> bytes:
    """Return the block that comes before the first message, with metadata, and how messages are compressed.

    Raises:
        Internal: the metadata can't be sent.
    """
    said = [("grpc-encoding", GZIP)] if compressed else []
    return head(content_type) + encode([*said, *fields(metadata or {})])


def ok(trailers: Metadata | None) -> bytes:
    """Return the block that ends a call well.

    Raises:
        Internal: the trailers can't be sent.
    """
    return encode([("grpc-status", "0"), *fields(trailers)]) if trailers else OK


def failure(error: StatusError, content_type: str, trailers: Metadata | None = None, *, headed: bool) -> bytes:
    """Return the block that ends a call with an error; all that is said where nothing was before (`headed`)."""
    try:
        said = status.trailers(error)
        if trailers:
            said += fields({name: value for name, value in trailers.items() if name not in error.metadata})
    except Internal as broken:
        said = status.trailers(broken)
    return encode(said if headed else [*_initial(content_type), *said])


def turn_away(stream: Stream, block: bytes, body: bytes) -> None:
    """Answer what isn't gRPC; an empty body is none at all."""
    connection = stream.connection
    if body:
        connection.piecemeal(stream, block, b"", body, b"")
    else:
        connection.end(stream, block)
    if not stream.got_end and stream.pending is None:
        connection.reset(stream, ErrorCode.NO_ERROR)


def finish(stream: Stream, block: bytes) -> None:
    """End a stream with trailers; a peer that is still sending is told to stop (RFC 9113 section 8.1)."""
    connection = stream.connection
    connection.end(stream, block)
    if not stream.got_end and stream.pending is None:
        connection.reset(stream, ErrorCode.NO_ERROR)
