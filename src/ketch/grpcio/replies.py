"""Replies that a handler writes, as the async iterator that ketch and its middleware expect."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from .context import ServicerContext


class Handover:
    """One message at a time from the handler's tasks to the call's; who writes waits until it was sent."""

    def __init__(self) -> None:
        self.message: Any = None
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._change = asyncio.Event()
        self._taken: asyncio.Future[None] | None = None
        self._closed = False

    async def give(self, message: Any) -> None:
        """Hand a message over and wait until it was sent.

        Raises:
            Cancelled: the call has ended.
        """
        async with self._turn:
            if self._closed:
                raise _ended()
            self.message, self._taken = message, self._loop.create_future()
            self._change.set()
            await self._taken

    async def take(self, task: asyncio.Task[Any]) -> bool:
        """Wait for a message, which is then in `message`; False when the task has ended instead."""
        while self._taken is None and not task.done():
            self._change.clear()
            await self._change.wait()
        return self._taken is not None

    def sent(self) -> None:
        """Let the writer go on."""
        taken, self._taken = self._taken, None
        if taken is not None and not taken.done():
            taken.set_result(None)

    def wake(self, _: object) -> None:
        """Let whoever takes look again."""
        self._change.set()

    def close(self) -> None:
        """Take no more; whoever still writes fails."""
        self._closed = True
        if self._taken is not None and not self._taken.done():
            self._taken.set_exception(_ended())


def _ended() -> Cancelled:
    return Cancelled("the call has ended; nothing more can be written")


async def written(
    behavior: Callable[[Any, Any], Coroutine[Any, Any, Any]], payload: object, context: ServicerContext
) -> AsyncGenerator[Any, None]:
    """Yield what a handler writes with `context.write`, while it runs in a task of its own."""
    handover = Handover()
    context.written = handover.give
    task = asyncio.create_task(behavior(payload, context), name=f"ketch handler of {context.request.method}")
    task.add_done_callback(handover.wake)
    try:
        while await handover.take(task):
            yield handover.message
            handover.sent()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)  # its error was raised by `await task`
        handover.close()
