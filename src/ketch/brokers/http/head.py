"""Head: the lines before the body of a request or a response (RFC 9112), as far as go-micro's broker needs them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

#: Bytes of a head; what comes longer is refused.
MAX_HEAD = 16 * 1024

_END = b"\r\n\r\n"
_DIGITS = 10


@dataclass(frozen=True, slots=True)
class Head:
    """A head.

    Attributes:
        first: the request's or status line.
        headers: by name, in lower case.
    """

    first: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Bytes of the body that follows, -1 where that isn't said in a way that is understood here."""
        text = self.headers.get("content-length", "")
        if "transfer-encoding" in self.headers or not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
            return -1
        return int(text)

    @property
    def last(self) -> bool:
        """Whether the connection ends with this message."""
        return self.headers.get("connection", "").lower() == "close" or "HTTP/1.0" in self.first


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """Read a head; None where there is none any more, or what comes is none."""
    try:
        block = await reader.readuntil(_END)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    first, *lines = block[: -len(_END)].decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    names = [name.lower() for name, _, _ in pairs]
    if any(not colon for _, colon, _ in pairs) or names.count("content-length") > 1:
        return None
    return Head(first, {name: value.strip() for name, (_, _, value) in zip(names, pairs, strict=True)})
