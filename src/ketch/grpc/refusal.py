"""Refusals: what isn't handled, and how it is told so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..http2.stream import Stream
from . import answers

if TYPE_CHECKING:
    from ..http2.compression import Headers
    from .serving import Host

#: Bytes of a refused request's body that are waited for before it is answered all the same.
_PATIENCE: Final = 65_535


class Refusal(Stream):
    """A call that isn't handled: it is answered at once."""

    __slots__ = ("_block", "deadline")

    def __init__(self, wire: Host, stream_id: int, block: bytes) -> None:
        super().__init__(wire.connection, stream_id)
        self.deadline = None
        self._block = block

    def on_headers(self, headers: Headers, *, end: bool) -> None:  # noqa: ARG002 - the wire has read them
        """Answer."""
        if not self.sent_end:
            answers.finish(self, self._block)

    def on_data(self, payload: bytes, *, end: bool) -> None:
        """Have no use for it."""

    def on_reset(self, code: int, reason: str, *, refused: bool) -> None:
        """Have nothing to do."""


class Stranger(Stream):
    """A request that isn't gRPC: it is told so when it has ended, in words for whoever sees them."""

    __slots__ = ("_body", "_seen", "deadline")

    def __init__(self, wire: Host, stream_id: int, method: str) -> None:
        super().__init__(wire.connection, stream_id)
        self.deadline = None
        self._body = b"" if method == "HEAD" else answers.NOT_GRPC_BODY
        self._seen = 0

    def on_headers(self, headers: Headers, *, end: bool) -> None:  # noqa: ARG002 - the wire has read them
        """Answer, unless there is more to come."""
        if end:
            self._answer()

    def on_data(self, payload: bytes, *, end: bool) -> None:
        """Answer once there is no more, or too much, to come."""
        self._seen += len(payload)
        if end or self._seen > _PATIENCE:
            self._answer()

    def _answer(self) -> None:
        if not self.sent_end and self.pending is None:
            answers.turn_away(self, answers.NOT_GRPC, self._body)

    def on_reset(self, code: int, reason: str, *, refused: bool) -> None:
        """Have nothing to do."""
