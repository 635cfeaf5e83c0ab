"""A channel's methods: what a generated stub holds and its callers call."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grpc.aio

from .kinds import StreamStreamCall, StreamUnaryCall, UnaryStreamCall
from .unary import UnaryCall

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable

    from ..rpc import Method
    from .calls import Calls


class _Callable:
    """One method of a channel."""

    def __init__(self, calls: Calls, method: Method[Any, Any]) -> None:
        self._calls = calls
        self._method = method


class UnaryUnary(_Callable, grpc.aio.UnaryUnaryMultiCallable[Any, Any]):
    """One request, one reply."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> UnaryCall:
        """Make a call."""
        options = self._calls.options(credentials, wait_for_ready, compression)
        calling = partial(self._calls.unary, self._method, request, timeout, metadata, options)
        return UnaryCall(self._calls.connectivity, timeout, calling, self._calls.ongoing)


class UnaryStream(_Callable, grpc.aio.UnaryStreamMultiCallable[Any, Any]):
    """One request, any number of replies."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> UnaryStreamCall:
        """Start a call."""
        options = self._calls.options(credentials, wait_for_ready, compression)
        opening = partial(self._calls.open, self._method, request, timeout, metadata, options)
        call = UnaryStreamCall(self._calls.connectivity, timeout, opening, single=True, request=request)
        return self._calls.keep(call)


class StreamUnary(_Callable, grpc.aio.StreamUnaryMultiCallable[Any, Any]):
    """Any number of requests, one reply."""

    def __call__(
        self,
        request_iterator: AsyncIterable[Any] | Iterable[Any] | None = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - grpc.aio's signature
        compression: grpc.Compression | None = None,
    ) -> StreamUnaryCall:
        """Start a call; without an iterator, write the requests."""
        options = self._calls.options(credentials, wait_for_ready, compression)
        opening = partial(self._calls.open, self._method, request_iterator, timeout, metadata, options)
        return self._calls.keep(StreamUnaryCall(self._calls.connectivity, timeout, opening, requests=request_iterator))


class StreamStream(_Callable, grpc.aio.StreamStreamMultiCallable[Any, Any]):
    """Any number of requests and of replies."""

    def __call__(
        self,
        request_iterator: AsyncIterable[Any] | Iterable[Any] | None = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - grpc.aio's signature
        compression: grpc.Compression | None = None,
    ) -> StreamStreamCall:
        """Start a call; without an iterator, write the requests."""
        options = self._calls.options(credentials, wait_for_ready, compression)
        opening = partial(self._calls.open, self._method, request_iterator, timeout, metadata, options)
        return self._calls.keep(StreamStreamCall(self._calls.connectivity, timeout, opening, requests=request_iterator))
