"""Serving: how the calls that come in on a connection are handled, each by a task of its own."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import Cancelled, StatusError, Unknown
from . import gomicro
from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..transport import Request

log = logging.getLogger("ketch.grpc")


class Call(Protocol):
    """A call that is handled: a unary one, or a stream.

    Attributes:
        task: runs the handler, None before.
        request: what the handler was given, None before.
    """

    task: asyncio.Task[None] | None
    request: Request | None

    def complete(self, result: Any) -> None:
        """End the call well.

        Raises:
            StatusError: the reply, or its metadata, can't be sent.
        """

    def answer(self, error: StatusError) -> None:
        """End the call with an error; nothing is said where it has ended."""

    def refuse(self) -> None:
        """Turn the call away before any handler saw it; its caller may try elsewhere."""

    def abandon(self, error: StatusError) -> None:
        """Answer with an error and cancel the handler."""


class Host(Wire):
    """A connection, as the calls that come in on it see it."""

    def start(self, call: Call, handler: Callable[[Request], Awaitable[Any]], request: Request) -> None:
        """Handle a call in a task of its own."""
        raise NotImplementedError

    async def has_room(self) -> None:
        """Wait until the client has taken enough of the replies it has already."""
        raise NotImplementedError

    def retire(self, call: Call) -> None:
        """Forget a call whose handler has ended."""
        raise NotImplementedError


async def serve(wire: Host, call: Call, handler: Callable[[Request], Awaitable[Any]], request: Request) -> None:
    """Run a handler and answer the call; the whole life of a handler's task."""
    try:
        if wire.connection.sender.waiting > wire.tuning.unsent:
            await wire.has_room()
        call.complete(await handler(request))
    except StatusError as error:
        call.answer(gomicro.told(error, request.method, request.metadata))
    except asyncio.CancelledError:
        call.answer(Cancelled("the handler was cancelled"))
        raise
    except Exception:
        log.exception("%s: the handler failed", request.method)
        failure = Unknown("the handler failed; its service's log has the reason")
        call.answer(gomicro.told(failure, request.method, request.metadata))
    finally:
        wire.retire(call)


def stop(wire: Host, call: Call) -> None:
    """Cancel a call's handler."""
    if call.task is not None and not call.task.done():
        # A task that is cancelled before it first runs never comes to its own end.
        call.task.add_done_callback(lambda _: wire.retire(call))
        call.task.cancel()
