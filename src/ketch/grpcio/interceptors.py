"""grpc.aio's server interceptors, around hosted handlers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import grpc.aio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .metadata import Pair

    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]


class Details(grpc.HandlerCallDetails):
    """What an interceptor gets to know of a call: its method and its metadata."""

    def __init__(self, method: str, invocation_metadata: tuple[Pair, ...]) -> None:
        self.method = method
        self.invocation_metadata: Any = invocation_metadata


async def intercepted(
    interceptors: Sequence[grpc.aio.ServerInterceptor], handler: Handler, details: Details
) -> Handler | None:
    """Return the handler that the interceptors make of a handler, None where they say there is none."""

    def link(index: int) -> Callable[[grpc.HandlerCallDetails], Awaitable[Any]]:
        async def continuation(given: grpc.HandlerCallDetails) -> Any:
            if index == len(interceptors):
                return handler
            return await interceptors[index].intercept_service(link(index + 1), given)

        return continuation

    found: Handler | None = await link(0)(details)
    return found
