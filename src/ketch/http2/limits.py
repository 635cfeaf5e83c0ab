"""What a peer may cost us. A connection that goes over a limit ends with ENHANCE_YOUR_CALM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..errors import ProtocolError
from .codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable


#: Largest frame that clients accept, in bytes: they are sent what they asked for, so larger pieces save work.
CLIENT_FRAME: Final = 262_144


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection.

    Attributes:
        max_streams: streams that the peer may have open at a time.
        max_frame: largest frame that we accept, in bytes; only DATA may be larger than `max_header_block`. Servers
            keep to the RFC's default, so that a header list which is too large comes in pieces and costs its own stream
            only; see `CLIENT_FRAME`.
        max_header_list: largest header list that we accept, in bytes as RFC 7541 section 4.1 counts them.
        max_header_block: largest encoded header block, in bytes over all its frames.
        max_continuations: frames that one header block may come in.
        stream_window: bytes that the peer may send on one stream before we took any.
        max_stream_window: what that grows to where it is taken fast.
        connection_window: bytes that may be on their way on all streams together.
        max_connection_window: what that grows to; also what the windows of all streams may grow by, in sum.
    """

    max_streams: int = 1000
    max_frame: int = 16_384
    max_header_list: int = 16_384
    max_header_block: int = 65_536
    max_continuations: int = 32
    stream_window: int = 131_072
    max_stream_window: int = 4 * 1024 * 1024
    connection_window: int = 4 * 1024 * 1024
    max_connection_window: int = 16 * 1024 * 1024


class Allowance:
    """How much a peer may send of what costs us work and does none of its own.

    A bucket: `burst` at once, then `rate` in a second. Work done puts some back (`earn`), so that a peer that
    cancels one call in two isn't taken for one that only opens and resets streams (CVE-2023-44487).
    """

    __slots__ = ("_at", "_burst", "_clock", "_rate", "_what", "used")

    def __init__(self, what: str, burst: float, rate: float, clock: Callable[[], float]) -> None:
        self.used = 0.0
        self._what = what
        self._burst = burst
        self._rate = rate
        self._clock = clock
        self._at = clock()

    def spend(self) -> None:
        """Take one.

        Raises:
            ProtocolError: none is left; ENHANCE_YOUR_CALM.
        """
        self.used += 1
        if self.used > self._burst:
            now = self._clock()
            self.used = max(0.0, self.used - (now - self._at) * self._rate)
            self._at = now
            if self.used > self._burst:
                raise ProtocolError(f"too many {self._what}", ErrorCode.ENHANCE_YOUR_CALM)

    def earn(self) -> None:
        """Put one back."""
        if self.used:
            self.used = max(0.0, self.used - 1)
