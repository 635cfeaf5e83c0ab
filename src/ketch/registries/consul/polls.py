"""Polls: blocking queries, asked again and again, each shared by all that want its answer.

As developer.hashicorp.com/consul/api-docs/features/blocking has it: an index that goes backwards is forgotten, one
that isn't positive is taken for 1, and a client limits its own rate.
"""

from __future__ import annotations

import asyncio
from random import uniform
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from .agent import Agent

T = TypeVar("T")

#: Seconds between two questions of a poll that finds all blocking queries taken.
_CROWDED_PAUSE = 2.0
#: First questions, which don't block, at once.
_FIRSTS = 16


class Poll(Generic[T]):
    """One query.

    Attributes:
        answer: the latest, None while there is none.
        error: why it was given up, None while it goes on.
        listeners: set whenever one of those changes.
    """

    def __init__(self) -> None:
        self.answer: T | None = None
        self.error: Exception | None = None
        self.listeners: set[asyncio.Event] = set()
        self.task: asyncio.Task[None] | None = None

    def tell(self) -> None:
        """Wake the listeners."""
        for listener in self.listeners:
            listener.set()


class Polls:
    """The queries that are asked just now.

    Args:
        agent: whom to ask.
        wait: seconds that a query blocks.
        connections: queries that block at once; further ones ask every two seconds.
    """

    def __init__(self, agent: Agent, wait: float, connections: int) -> None:
        self._agent = agent
        self._wait = wait
        self._free = connections
        self._firsts = asyncio.Semaphore(_FIRSTS)
        self._polls: dict[str, Poll[Any]] = {}

    def join(self, path: str, read: Callable[[bytes], T], pause: float, listener: asyncio.Event) -> Poll[T]:
        """Return the poll of a path, begun if it isn't there; it sets `listener`.

        Args:
            path: of the query.
            read: makes its answer of a body; it may raise `RegistryError`.
            pause: seconds between two questions, at least.
            listener: told of answers and of the end.
        """
        poll = self._polls.get(path)
        if poll is None:
            poll = self._polls[path] = Poll()
            poll.task = asyncio.create_task(self._run(path, poll, read, pause), name=f"ketch consul poll of {path}")
        poll.listeners.add(listener)
        return poll

    async def leave(self, path: str, poll: Poll[Any], listener: asyncio.Event) -> None:
        """Listen no more; a poll that nobody listens to ends."""
        poll.listeners.discard(listener)
        if not poll.listeners and poll.task is not None:
            self._drop(path, poll)
            poll.task.cancel()
            await asyncio.gather(poll.task, return_exceptions=True)

    async def _run(self, path: str, poll: Poll[T], read: Callable[[bytes], T], pause: float) -> None:
        index = 0
        try:
            while True:
                body, latest = await self._ask(path, index)
                if latest != index:
                    poll.answer = read(body)
                    poll.tell()
                index = 0 if latest < index else max(latest, 1)
                await asyncio.sleep(uniform(pause / 2, pause))  # noqa: S311 - spreading needs no secret
        except Exception as error:  # noqa: BLE001 - raised in all who listen
            self._drop(path, poll)
            poll.error = error
            poll.tell()

    async def _ask(self, path: str, index: int) -> tuple[bytes, int]:
        if index and self._free:
            self._free -= 1
            try:
                return await self._agent.query(path, index, self._wait)
            finally:
                self._free += 1
        if index:
            await asyncio.sleep(uniform(_CROWDED_PAUSE / 2, _CROWDED_PAUSE))  # noqa: S311 - as above
        async with self._firsts:
            return await self._agent.query(path, 0, self._wait)

    def _drop(self, path: str, poll: Poll[Any]) -> None:
        if self._polls.get(path) is poll:
            del self._polls[path]
