"""RunningCall: what all calls on a channel have in common: their end, and who wants to hear of it."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final

import grpc.aio

from ..errors import StatusError, Unreachable
from .metadata import stock
from .status import code_of, rpc_error, trailers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .connectivity import Connectivity


_READY: Final = grpc.ChannelConnectivity.READY
_FAILING: Final = grpc.ChannelConnectivity.TRANSIENT_FAILURE


class Ending:
    """How a call ended; treat it as immutable.

    Attributes:
        error: its status, None for OK.
        cancelled: it was cancelled on this side; whoever awaits it gets `asyncio.CancelledError`.
        failure: what is raised when it failed before it was a call at all, such as a middleware's own error.
        metadata, trailers: what the server sent.
    """

    __slots__ = ("cancelled", "error", "failure", "metadata", "trailers")

    def __init__(
        self,
        error: StatusError | None = None,
        *,
        cancelled: bool = False,
        failure: BaseException | None = None,
        metadata: Mapping[str, str] | None = None,
        trailers: Mapping[str, str] | None = None,
    ) -> None:
        self.error = error
        self.cancelled = cancelled
        self.failure = failure
        self.metadata = metadata
        self.trailers = trailers

    @property
    def is_ok(self) -> bool:
        """Whether the call ended well."""
        return self.error is None and not self.cancelled and self.failure is None

    def check(self) -> None:
        """Raise what the call ended with, if it isn't OK."""
        if self.cancelled:
            raise asyncio.CancelledError
        if self.failure is not None:
            raise self.failure
        if self.error is not None:
            raise rpc_error(self.error, stock(self.metadata))


class RunningCall(grpc.aio.Call):
    """One call; it goes on whether or not somebody awaits it."""

    def __init__(self, connectivity: Connectivity, timeout: float | None) -> None:
        self.ending: Ending | None = None
        self._connectivity = connectivity
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._callbacks: list[Callable[[Any], object]] = []

    @abstractmethod
    async def finished(self) -> Ending:
        """Wait until the call has ended; cancelling the wait leaves it as it is."""

    @abstractmethod
    def stop(self) -> None:
        """End what goes on, after the call was cancelled."""

    def end(self, ending: Ending) -> None:
        """Note how the call ended; the first time counts."""
        if self.ending is not None:
            return
        self.ending = ending
        if isinstance(ending.error, Unreachable):
            self._connectivity.become(_FAILING)
        elif (ending.error is not None or ending.is_ok) and self._connectivity.state is not _READY:
            self._connectivity.become(_READY)
        if self._callbacks:
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                asyncio.get_running_loop().call_soon(callback, self)

    def cancelled(self) -> bool:
        """Whether the call ended as cancelled, on either side."""
        ending = self.ending
        return ending is not None and (ending.cancelled or code_of(ending.error) is grpc.StatusCode.CANCELLED)

    def done(self) -> bool:
        """Whether the call has ended; for a stream, whether whoever reads has seen that."""
        return self.ending is not None

    def cancel(self) -> bool:
        """Give the call up; False if it has ended."""
        if self.ending is not None:
            return False
        self.end(Ending(cancelled=True))
        self.stop()
        return True

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Call `callback(call)` when the call has ended."""
        if self.ending is None:
            self._callbacks.append(callback)
        else:
            asyncio.get_running_loop().call_soon(callback, self)

    def time_remaining(self) -> float | None:
        """Return the seconds left until the deadline, None where there is none."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Return what the server sent ahead of its reply."""
        return stock((await self.finished()).metadata)

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Return what the server sent when the call ended."""
        ending = await self.finished()
        return stock(ending.trailers if ending.error is None else trailers_of(ending.error))

    async def code(self) -> grpc.StatusCode:
        """Return the code that the call ended with."""
        ending = await self.finished()
        if ending.cancelled:
            return grpc.StatusCode.CANCELLED
        return grpc.StatusCode.UNKNOWN if ending.failure is not None else code_of(ending.error)

    async def details(self) -> str:
        """Return the message that the call ended with, "" for none."""
        ending = await self.finished()
        if ending.cancelled:
            return "Locally cancelled by application!"
        return str(ending.failure) if ending.failure is not None else ending.error.message if ending.error else ""

    async def debug_error_string(self) -> str:
        """Return what kind of error ended the call."""
        ending = await self.finished()
        return "" if ending.error is None else f"ketch: {type(ending.error).__name__}"
