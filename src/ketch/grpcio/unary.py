"""UnaryCall: a call with one request and one reply, as grpc.aio gives it to its callers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc.aio

from ..context import ReplyMetadata
from ..errors import CodecError, StatusError
from .call import Ending, RunningCall

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from .connectivity import Connectivity


class UnaryCall(RunningCall, grpc.aio.UnaryUnaryCall[Any, Any]):
    """One call, made by a task of its own; await it for the reply, as often as you like.

    Args:
        calling: makes it.
        ongoing: holds it until it has ended.
    """

    def __init__(
        self,
        connectivity: Connectivity,
        timeout: float | None,
        calling: Callable[[], Awaitable[Any]],
        ongoing: set[RunningCall],
    ) -> None:
        super().__init__(connectivity, timeout)
        self._ongoing = ongoing
        ongoing.add(self)
        self._task = asyncio.create_task(self._run(calling))

    async def _run(self, calling: Callable[[], Awaitable[Any]]) -> Any:
        # Nothing is raised from here: asyncio would complain where nobody awaits the call.
        reply = error = failure = None
        received = ReplyMetadata().__enter__()  # the task is the call's own, so there is nothing to be restored
        try:
            reply = await calling()
        except StatusError as status:
            error = status
        except CodecError as wrong:
            failure = wrong.__cause__ or wrong
        except asyncio.CancelledError:
            self.end(Ending(cancelled=True))
            raise
        except Exception as other:  # noqa: BLE001 - raised to whoever awaits the call
            failure = other
        self.end(Ending(error, failure=failure, metadata=received.metadata, trailers=received.trailers))
        return reply

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            reply = yield from self._task.__await__()
        except asyncio.CancelledError:
            self._drop()
            raise
        ending = self.ending
        if ending is not None and not ending.is_ok:
            ending.check()
        return reply

    def end(self, ending: Ending) -> None:
        """Note how the call ended."""
        super().end(ending)
        self._ongoing.discard(self)

    async def finished(self) -> Ending:
        """Wait until the call has ended."""
        if not self._task.done():
            await asyncio.wait((self._task,))
        return self._drop()

    def stop(self) -> None:
        """Cancel the task."""
        self._task.cancel()

    async def wait_for_connection(self) -> None:
        """Wait until the call has ended, and raise what it ended with; a unary call has no other sign of life.

        Raises:
            AioRpcError: the call failed.
        """
        (await self.finished()).check()

    def _drop(self) -> Ending:
        """Note that a task which was cancelled before it began has ended."""
        if self.ending is None:
            self.end(Ending(cancelled=True))
        assert self.ending is not None  # noqa: S101 - just said
        return self.ending
