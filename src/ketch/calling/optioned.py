"""Calls on their way out that are made in a way of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ..call import Call, Kind
from ..context import text_metadata
from ..rpc import Caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable

    from ..rpc import Metadata, Method, Reply, ReplyStream
    from .attempts import CallOptions

Q = TypeVar("Q")
P = TypeVar("P")


class Outgoing(Call):
    """A call on its way through the middleware, with what it takes to send it."""

    __slots__ = ("method", "options", "service")

    def __init__(
        self,
        service: str,
        method: Method[Any, Any],
        payload: Any,
        timeout: float | None,
        metadata: Metadata | None,
        options: CallOptions,
    ) -> None:
        super().__init__(Kind.REQUEST, method.path, payload, text_metadata(metadata), timeout=timeout)
        self.service = service
        self.method = method
        self.options = options


class Optioned(Caller):
    """A client, for a stub with options of its own.

    Args:
        unary, stream: the client's, which take options.
        options: for each call.
    """

    def __init__(
        self, unary: Callable[..., Reply[Any]], stream: Callable[..., ReplyStream[Any]], options: CallOptions
    ) -> None:
        self._unary = unary
        self._stream = stream
        self._options = options

    def unary(
        self, service: str, method: Method[Q, P], request: Q, timeout: float | None, metadata: Metadata | None
    ) -> Reply[P]:
        """Make one call with the options."""
        return self._unary(service, method, request, timeout, metadata, self._options)

    def stream(
        self,
        service: str,
        method: Method[Q, P],
        requests: AsyncIterable[Q],
        timeout: float | None,
        metadata: Metadata | None,
    ) -> ReplyStream[P]:
        """Start a streaming call with the options."""
        return self._stream(service, method, requests, timeout, metadata, self._options)
