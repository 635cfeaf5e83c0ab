"""Exchange: one call, as both sides share it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from ...errors import DeadlineExceeded, StatusError
from ...grpc.metadata import NONE
from .crossing import crossed_metadata, ended
from .pipe import Pipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...transport import Request


class Exchange:
    """One call, as both sides share it. `outcome` is how it ended: the reply, None for a stream, or a status."""

    def __init__(self, request: Request, limit: int) -> None:
        loop = asyncio.get_running_loop()
        self.request = request
        self.limit = limit
        self.requests = Pipe(loop)
        self.replies = Pipe(loop)
        self.metadata: Mapping[str, str] = NONE
        self.trailers: Mapping[str, str] = NONE
        self.outcome: asyncio.Future[bytes | None] = loop.create_future()
        self.task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if request.deadline is not None:
            self._timer = loop.call_later(max(0.0, request.deadline - time.monotonic()), self._expire)

    def _expire(self) -> None:
        self.abandon(DeadlineExceeded("the deadline passed first"))

    def begin(self) -> None:
        """Let the caller see the metadata that comes ahead of the reply.

        Raises:
            Internal: it can't be sent.
        """
        metadata = self.request.take_reply_metadata()
        if metadata:
            self.metadata = crossed_metadata(metadata)

    def finish(self, reply: bytes | None, trailers: Mapping[str, str]) -> None:
        """End it well; replies that were sent may still be received."""
        if not self.outcome.done():
            self._stop_timer()
            self.trailers = trailers
            self.outcome.set_result(reply)
            self.requests.close(ended())
            self.replies.close(None)

    def fail(self, error: StatusError, *, keep: bool = True) -> None:
        """End it with a status; what was sent before it may still be received, if `keep`."""
        if not self.outcome.done():
            self._stop_timer()
            said = error.metadata
            self.trailers = {**self._said_trailers(), **said}  # type: ignore[dict-item]  # `crossed` left only text
            self.outcome.set_exception(error)
            self.outcome.exception()  # a stream's caller asks for it by receiving, and may not
            for pipe in (self.requests, self.replies):
                pipe.close(error)
                if not keep:
                    pipe.clear()

    def _said_trailers(self) -> Mapping[str, str]:
        try:
            return crossed_metadata(self.request.sent_trailers)
        except StatusError:
            return NONE  # the call fails anyhow; its own status says more

    def abandon(self, error: StatusError) -> None:
        """End it at once with a status and cancel the handler."""
        self.fail(error, keep=False)
        if self.task is not None:
            self.task.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
