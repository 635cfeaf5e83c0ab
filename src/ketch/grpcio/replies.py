"""Replies that a handler writes, as the async iterator that ketch and its middleware expect."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from .context import ServicerContext


class Handover:
    """One message at a time from the handler's task to the call's; who writes waits until it was sent."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._message: Any = None
        self._given = self._loop.create_future()
        self._taken: asyncio.Future[None] | None = None

    async def give(self, message: Any) -> None:
        """Hand a message over and wait until it was sent."""
        async with self._turn:
            self._message, self._taken = message, self._loop.create_future()
            self._wake()
            await self._taken

    async def take(self, task: asyncio.Task[Any]) -> bool:
        """Wait for a message, which is then in `message`; False when the handler has ended instead."""
        task.add_done_callback(self._wake)
        await self._given
        self._given = self._loop.create_future()
        return self._taken is not None

    @property
    def message(self) -> Any:
        """What was handed over."""
        return self._message

    def sent(self) -> None:
        """Let the writer go on."""
        taken, self._taken = self._taken, None
        if taken is not None and not taken.done():
            taken.set_result(None)

    def _wake(self, _: object = None) -> None:
        if not self._given.done():
            self._given.set_result(None)


async def written(
    behavior: Callable[[Any, Any], Coroutine[Any, Any, Any]], payload: object, context: ServicerContext
) -> AsyncGenerator[Any, None]:
    """Yield what a handler writes with `context.write`, while it runs in a task of its own."""
    handover = Handover()
    context.written = handover.give
    task = asyncio.create_task(behavior(payload, context), name=f"ketch handler of {context.request.method}")
    try:
        while await handover.take(task):
            yield handover.message
            handover.sent()
        await task
    finally:
        if not task.done():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)  # its error was raised by `await task`
