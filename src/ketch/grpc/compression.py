"""Compressed messages (gRPC's compression.md): gzip is sent, gzip and deflate are understood.

Nothing expands beyond the limit on a message's size.
"""

from __future__ import annotations

import zlib
from typing import Final

from ..errors import Internal, ResourceExhausted

#: What we say we accept.
ACCEPTED: Final = "identity,deflate,gzip"
IDENTITY: Final = "identity"
GZIP: Final = "gzip"
KNOWN: Final = frozenset(ACCEPTED.split(","))

_GZIP: Final = 16 + zlib.MAX_WBITS
_BITS: Final = {GZIP: _GZIP, "deflate": zlib.MAX_WBITS}
#: zlib's 1 to 9. Messages have to be quick: most of the gain is there at the first level, for a third of the time.
_LEVEL: Final = 1


def shrink(body: bytes) -> bytes:
    """Return a body as gzip."""
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return deflate.compress(body) + deflate.flush()


def expand(body: bytes, encoding: str, limit: int) -> bytes:
    """Return a message that came with the compressed flag set.

    Raises:
        Internal: it isn't what `encoding` says, or no compression was announced.
        ResourceExhausted: it is larger than `limit`.
    """
    if encoding not in _BITS:
        raise Internal("a message is flagged as compressed, but no compression was announced")
    inflate = zlib.decompressobj(_BITS[encoding])
    try:
        data = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        raise Internal(f"a compressed message is broken: {error}") from error
    if len(data) > limit:
        raise ResourceExhausted(f"a message expands to more than {limit} bytes")
    if not inflate.eof:
        raise Internal("a compressed message is cut off")
    if inflate.unused_data:
        raise Internal("a compressed message has more behind its end")  # dropped, it would be lost without a word
    return data
