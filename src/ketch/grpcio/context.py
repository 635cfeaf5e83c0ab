"""ServicerContext: what a hosted handler gets to know of its call, and what it says there."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc.aio

from ..errors import Code, StatusError
from .metadata import DETAILS, mapping, pairs
from .status import error_of, number

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from ..transport import Request

_UNKEPT: Final = (
    "write() in a handler that yields its replies, or returns its one reply; yield or return it instead, or make the "
    "handler an `async def` that only writes"
)

_COMMON_NAME: Final = "x509_common_name"
_NAMES: Final = "x509_subject_alternative_name"


class ServicerContext(grpc.aio.ServicerContext[Any, Any]):
    """A call as grpc.aio's handlers see it.

    Attributes:
        request: the call as ketch has it.
        requests: the requests of a call that streams them.
        written: takes what a handler writes; None where it may not.
    """

    def __init__(self, request: Request, requests: AsyncIterator[Any] | None = None) -> None:
        self.request = request
        self.requests = requests
        self.written: Callable[[Any], Awaitable[None]] | None = None
        self._task = asyncio.current_task()
        self._code: grpc.StatusCode | int | None = None
        self._details = ""
        self._trailing: tuple[tuple[str, str | bytes], ...] = ()
        self._aborted: grpc.aio.AbortError | None = None
        self._headed = False
        self._done = False
        self._cancelled = False
        self._skipping = False
        self._compress: bool | None = None
        self._callbacks: list[Callable[[], object]] = []

    # messages

    async def read(self) -> Any:
        """Return the next request, `grpc.aio.EOF` after the last.

        Raises:
            UsageError: the method takes one request, which the handler was given.
            StatusError: the call has ended.
        """
        if self.requests is None:
            raise grpc.aio.UsageError("the handler was given its one request; there is nothing to read")
        return await anext(self.requests, grpc.aio.EOF)

    async def write(self, message: Any) -> None:
        """Send a reply; waits while the caller takes no more.

        Raises:
            NotImplementedError: the handler gives its replies in another way.
            StatusError: the call has ended.
        """
        self.check()
        if self.written is None:
            raise NotImplementedError(_UNKEPT)
        await self.written(message)

    # metadata

    def invocation_metadata(self) -> Any:
        """Return what the caller sent along, as pairs. Names that are HTTP's or gRPC's own aren't among them."""
        return tuple(pairs(self.request.metadata))

    async def send_initial_metadata(self, initial_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Send metadata ahead of the replies: at once in a streaming call, with the reply in a unary one.

        Raises:
            UsageError: it was sent.
        """
        self.check()
        if self._headed:
            raise grpc.aio.UsageError("the initial metadata has been sent already")
        self._headed = True
        self.request.reply_metadata.update(mapping(initial_metadata))
        if self.request.begin is not None:
            await self.request.begin()

    def set_trailing_metadata(self, trailing_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Say what is sent after the last reply."""
        mapping(trailing_metadata := tuple(trailing_metadata))
        self._trailing = trailing_metadata

    def trailing_metadata(self) -> Any:
        """Return what `set_trailing_metadata` was given."""
        return self._trailing

    # status

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        """End the call with a status.

        Raises:
            AbortError: always; let it pass.
            UsageError: it was aborted before.
        """
        self.stop(code, details, trailing_metadata)

    def stop(
        self, code: grpc.StatusCode, details: str, trailing_metadata: Iterable[tuple[str, str | bytes]]
    ) -> NoReturn:
        """Abort the call; what `abort` does."""
        if self._aborted is not None:
            raise grpc.aio.UsageError("abort() was called already")
        self._aborted = grpc.aio.AbortError("Locally aborted.")
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        self._code = code
        self._details = details or self._details
        raise self._aborted

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a status, as `grpc_status.rpc_status.to_status` makes it; see `abort`."""
        self.stop(status.code, status.details, status.trailing_metadata or ())

    def set_code(self, code: grpc.StatusCode) -> None:
        """Say the status that the call ends with when the handler returns."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Say the message that goes with a status other than OK."""
        self._details = details

    def code(self) -> Any:
        """Return what `set_code` or `abort` was given, None before."""
        return self._code

    def details(self) -> str:
        """Return what `set_details` or `abort` was given."""
        return self._details

    # compression

    def set_compression(self, compression: grpc.Compression) -> None:
        """Say whether replies are compressed where the caller takes that.

        Raises:
            NotImplementedError: ketch sends gzip only.
            RuntimeError: replies are on their way already.
        """
        if self._headed:
            raise RuntimeError("compression must be set before the initial metadata is sent")
        self._compress = self.request.compress = compresses(compression)

    def disable_next_message_compression(self) -> None:
        """Send the next reply as it is."""
        self._skipping = True

    # the caller

    def peer(self) -> str:
        """Return the caller's address as grpcio writes it, such as `ipv4:127.0.0.1:50101`."""
        address = self.request.peer
        if address.startswith("["):
            return "ipv6:" + address.replace("[", "%5B").replace("]", "%5D")
        return f"ipv4:{address}" if address[:1].isdigit() else address

    def peer_identities(self) -> Iterable[bytes] | None:
        """Return the caller's names, which a certificate proves; None without mutual TLS."""
        key = self.peer_identity_key()
        return None if key is None else self.auth_context()[key]

    def peer_identity_key(self) -> str | None:
        """Return which of `auth_context` is the caller's name, None without mutual TLS."""
        proved = self.auth_context()
        return next((key for key in (_NAMES, _COMMON_NAME) if key in proved), None)

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return what the caller's certificate says under gRPC's names for it; nothing without mutual TLS."""
        identity = self.request.peer_identity
        if identity is None:
            return {}
        found: dict[str, list[bytes]] = {"transport_security_type": [b"ssl"]}
        if identity.common_name:
            found[_COMMON_NAME] = [identity.common_name.encode()]
        if identity.names:
            found[_NAMES] = [value.encode() for _, value in identity.names]
        return found

    def time_remaining(self) -> Any:
        """Return the seconds left until the deadline, None where there is none."""
        return self.request.remaining()

    # the call's end

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Call `callback(context)` when the call has ended."""
        self._callbacks.append(partial(callback, self))

    def cancelled(self) -> bool:
        """Whether the caller gave the call up, or its deadline has passed."""
        return self._cancelled or (not self._done and self._task is not None and self._task.cancelling() > 0)

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._done or self._aborted is not None

    def cancel(self) -> None:
        """Cancel the handler."""
        if self._task is not None and not self._done:
            self._task.cancel()

    # for what runs the handler

    def check(self) -> None:
        """Raise what `abort` raised, in case the handler went on all the same."""
        if self._aborted is not None:
            raise self._aborted

    async def before_reply(self) -> None:
        """Prepare for a streamed reply: it goes as it is if it shall not be compressed."""
        self.check()
        if self._skipping:
            if not self._headed and self.request.begin is not None:
                await self.request.begin()  # else the headers would say that nothing is compressed
            self.request.compress = False
        self._headed = True

    def after_reply(self) -> None:
        """Compress again."""
        if self._skipping:
            self._skipping = False
            self.request.compress = self._compress

    def finish(self, error: BaseException | None = None) -> None:
        """End the call: hand over the trailing metadata, and raise the status if it isn't OK.

        Args:
            error: what the handler raised, if it did.

        Raises:
            StatusError: the call's status; nothing is raised where `error` says it all.
        """
        if error is None and self._code is None and not (self._trailing or self._callbacks or self._skipping):
            self._done = True
            return  # as nearly all calls end
        self._cancelled = error is not None and (isinstance(error, asyncio.CancelledError) or self.cancelled())
        self._done = True
        if self._skipping and self.request.begin is None:
            self.request.compress = False
        loop = asyncio.get_running_loop()
        for callback in self._callbacks:
            loop.call_soon(callback)  # the status is on its way by then
        trailers = mapping(self._trailing)
        details = trailers.pop(DETAILS, None)
        if trailers:
            self.request.trailers.update(trailers)
        code = number(Code.OK if self._code is None else self._code)
        if isinstance(error, asyncio.CancelledError | StatusError | GeneratorExit) or code == Code.OK:
            return
        raise error_of(code, self._details, {} if details is None else {DETAILS: details}) from error


def compresses(compression: grpc.Compression | None) -> bool | None:
    """Return whether messages are compressed, None where nothing is said.

    Raises:
        NotImplementedError: ketch sends gzip only.
    """
    if compression is None:
        return None
    if compression == grpc.Compression.Deflate:
        raise NotImplementedError("ketch sends gzip only, so grpc.Compression.Deflate can't be asked for")
    return compression == grpc.Compression.Gzip
