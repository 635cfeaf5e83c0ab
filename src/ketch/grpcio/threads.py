"""Handlers that block: they run in a thread pool, with grpcio's blocking context."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, TypeVar

import grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
    from concurrent.futures import Executor

    from .context import ServicerContext

T = TypeVar("T")

Pairs: TypeAlias = "Iterable[tuple[str, str | bytes]]"

_END: Final = object()


async def run(pool: Executor | None, function: Callable[..., T], *arguments: Any) -> T:
    """Run a function in the pool, None for the event loop's own, with ketch's context as it is here."""
    call = partial(contextvars.copy_context().run, _checked, function, *arguments)
    return await asyncio.get_running_loop().run_in_executor(pool, call)


def _checked(function: Callable[..., T], *arguments: Any) -> T:
    try:
        return function(*arguments)
    except StopIteration as error:  # no future can carry it, so whoever waits would do so for ever
        raise RuntimeError("a handler raised StopIteration") from error


async def answered(
    pool: Executor | None, behavior: Callable[[Any, Any], T], payload: object, context: ServicerContext
) -> T:
    """Return the reply of a handler that blocks."""
    return await run(pool, behavior, _blocking(payload), BlockingContext(context))


async def streamed(
    pool: Executor | None, behavior: Callable[[Any, Any], Iterable[Any]], payload: object, context: ServicerContext
) -> AsyncGenerator[Any, None]:
    """Yield the replies of a generator that blocks."""
    steps = _Steps(partial(behavior, _blocking(payload), BlockingContext(context)))
    try:
        while (reply := await run(pool, steps.next)) is not _END:
            yield reply
    finally:
        if steps.stop():
            # A thread can't be cancelled: the generator is closed there after its present step; nobody waits for it.
            asyncio.get_running_loop().run_in_executor(pool, steps.close)


def _blocking(payload: Any) -> Any:
    return _Requests(payload) if hasattr(payload, "__anext__") else payload


class _Steps:
    """A generator that is advanced by any thread, by one at a time."""

    def __init__(self, begin: Callable[[], Iterable[Any]]) -> None:
        self._begin = begin
        self._iterator: Iterator[Any] | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def next(self) -> Any:
        """Return the next item, `_END` after the last."""
        with self._lock:
            if self._stopped:
                return _END
            if self._iterator is None:
                self._iterator = iter(self._begin())
            item = next(self._iterator, _END)
            self._stopped = item is _END
            return item

    def stop(self) -> bool:
        """Begin no further step; whether there might have been one."""
        left, self._stopped = not self._stopped, True
        return left

    def close(self) -> None:
        """Close the generator, after the step that is being made."""
        with self._lock:
            close = getattr(self._iterator, "close", None)
            if close is not None:
                close()


class _Requests(Iterator[Any]):
    """A call's requests, for a thread."""

    def __init__(self, requests: AsyncIterator[Any]) -> None:
        self._requests = requests
        self._loop = asyncio.get_running_loop()

    def __next__(self) -> Any:
        request = asyncio.run_coroutine_threadsafe(self._read(), self._loop).result()
        if request is _END:
            raise StopIteration
        return request

    async def _read(self) -> Any:
        return await anext(self._requests, _END)


class BlockingContext(grpc.ServicerContext):
    """A call as handlers that block see it; it hands everything on to the call's own context."""

    def __init__(self, context: ServicerContext) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()

    def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Pairs = ()) -> NoReturn:
        """End the call with a status; it always raises, and what it raises must pass."""
        self._context.stop(code, details, trailing_metadata)

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a status, as `abort`."""
        self._context.stop(status.code, status.details, status.trailing_metadata or ())

    def send_initial_metadata(self, initial_metadata: Pairs) -> None:
        """Send metadata ahead of the replies."""
        sending = self._context.send_initial_metadata(initial_metadata)
        asyncio.run_coroutine_threadsafe(sending, self._loop).result()

    def is_active(self) -> bool:
        """Whether somebody waits for the reply: a thread isn't cancelled, so a long handler looks here."""
        return not self._context.done()

    def cancel(self) -> bool:
        """Give the call up."""
        self._loop.call_soon_threadsafe(self._context.cancel)
        return self.is_active()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback()` when the call has ended; False if it has."""
        active = self.is_active()
        if active:
            self._context.add_done_callback(lambda _: callback())
        return active

    def invocation_metadata(self) -> Any:
        """Return what the caller sent along, as pairs."""
        return self._context.invocation_metadata()

    def set_trailing_metadata(self, trailing_metadata: Pairs) -> None:
        """Say what is sent after the last reply."""
        self._context.set_trailing_metadata(trailing_metadata)

    def trailing_metadata(self) -> Any:
        """Return what `set_trailing_metadata` was given."""
        return self._context.trailing_metadata()

    def set_code(self, code: grpc.StatusCode) -> None:
        """Say the status that the call ends with."""
        self._context.set_code(code)

    def set_details(self, details: str) -> None:
        """Say the message that goes with a status other than OK."""
        self._context.set_details(details)

    def code(self) -> Any:
        """Return what `set_code` was given, None before."""
        return self._context.code()

    def details(self) -> str:
        """Return what `set_details` was given."""
        return self._context.details()

    def set_compression(self, compression: grpc.Compression) -> None:
        """Say whether replies are compressed."""
        self._context.set_compression(compression)

    def disable_next_message_compression(self) -> None:
        """Send the next reply as it is."""
        self._context.disable_next_message_compression()

    def peer(self) -> str:
        """Return the caller's address."""
        return self._context.peer()

    def peer_identities(self) -> Iterable[bytes] | None:
        """Return what the call's own context does."""
        return self._context.peer_identities()

    def peer_identity_key(self) -> str | None:
        """Return what the call's own context does."""
        return self._context.peer_identity_key()

    def auth_context(self) -> Mapping[str, Any]:
        """Return what the call's own context does."""
        return self._context.auth_context()

    def time_remaining(self) -> Any:
        """Return the seconds left until the deadline, None where there is none."""
        return self._context.time_remaining()
