"""Compressed messages: gzip is understood, and nothing expands beyond the limit."""

from __future__ import annotations

import zlib
from typing import Final

from ..errors import Internal, ResourceExhausted

#: What we say we accept.
ACCEPTED: Final = "identity,gzip"
IDENTITY: Final = "identity"
KNOWN: Final = frozenset({IDENTITY, "gzip"})

_GZIP: Final = 16 + zlib.MAX_WBITS


def expand(body: bytes, encoding: str, limit: int) -> bytes:
    """Return a message that came with the compressed flag set.

    Raises:
        Internal: it isn't what `encoding` says, or no compression was announced.
        ResourceExhausted: it is larger than `limit`.
    """
    if encoding != "gzip":
        raise Internal("a message is flagged as compressed, but no compression was announced")
    inflate = zlib.decompressobj(_GZIP)
    try:
        data = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        raise Internal(f"a compressed message is broken: {error}") from error
    if len(data) > limit:
        raise ResourceExhausted(f"a message expands to more than {limit} bytes")
    if not inflate.eof:
        raise Internal("a compressed message is cut off")
    return data
