"""MemoryListener: runs the handlers of one address."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from ...errors import Cancelled, StatusError, Unavailable, Unimplemented, Unknown
from ...transport import Listener
from .crossing import check_size, crossed, crossed_metadata
from .stream import MemoryStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ...transport import Route
    from .exchange import Exchange

log = logging.getLogger("ketch.memory")

#: Seconds for cancelled handlers to end.
_LAST: Final = 1.0


class MemoryListener(Listener):
    """Runs handlers, each in a task of its own."""

    def __init__(self, address: str, routes: Mapping[str, Route], limit: int, forget: Callable[[], object]) -> None:
        self._address = address
        self._routes = routes
        self._limit = limit
        self._forget = forget
        self._running: dict[asyncio.Task[None], Exchange] = {}

    @property
    def address(self) -> str:
        """Where others reach it."""
        return self._address

    def accept(self, exchange: Exchange) -> None:
        """Take a call."""
        request = exchange.request
        route = self._routes.get(request.method)
        if route is None:
            exchange.fail(Unimplemented(f"{request.method} isn't served here"))
            return
        task = asyncio.ensure_future(self._serve(exchange, route))
        exchange.task = task
        self._running[task] = exchange
        task.add_done_callback(self._done)

    async def stop(self, grace: float) -> None:
        """Take no more calls and let those in hand finish; see `transport.Listener`."""
        self._forget()
        if self._running:
            await asyncio.wait(self._running, timeout=grace)
        late = dict(self._running)
        for exchange in late.values():
            exchange.abandon(Unavailable("the server is stopping"))
        if late:
            await asyncio.wait(late, timeout=_LAST)

    def _done(self, task: asyncio.Task[None]) -> None:
        # Also where the task was cancelled before it first ran.
        exchange = self._running.pop(task)
        exchange.fail(Cancelled("the handler was cancelled"))

    async def _serve(self, exchange: Exchange, route: Route) -> None:
        request = exchange.request
        try:
            reply = await _run(exchange, route)
            exchange.begin()
            trailers = crossed_metadata(request.sent_trailers)
            if reply is not None:
                check_size(reply, self._limit)
            exchange.finish(reply, trailers)
        except StatusError as error:
            self._fail(exchange, error)
        except Exception:
            log.exception("%s: the handler failed", request.method)
            exchange.fail(Unknown("the handler failed; its service's log has the reason"))

    def _fail(self, exchange: Exchange, error: StatusError) -> None:
        try:
            exchange.begin()
        except StatusError as broken:
            error = broken
        exchange.fail(crossed(error))


def _run(exchange: Exchange, route: Route) -> Awaitable[Any]:
    if route.unary is not None:
        return route.unary(exchange.request)
    assert route.stream is not None  # noqa: S101 - a route has exactly one handler
    return route.stream(exchange.request, MemoryStream(exchange, client=False))
