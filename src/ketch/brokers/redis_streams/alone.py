"""A subscription without a group: it remembers by itself how far it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...broker import Delivery, Outcome
from .places import earlier, just_before, last_id
from .scheduling import release
from .taking import Taking

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from ...resp.connection import Argument, Connection


class Alone(Taking):
    """Gets every event from a place in the stream on. What is given back comes again to itself, and ends with it."""

    async def _begin(self, connection: Connection, since: float | None) -> None:
        self._timers: set[asyncio.TimerHandle] = set()
        self._position = await last_id(connection, self.topic) if since is None else just_before(since).encode()

    def _read(self, count: int, milliseconds: int) -> tuple[Argument, ...]:
        return "XREAD", "COUNT", count, "BLOCK", milliseconds, "STREAMS", self.topic, self._position

    async def _tend(self, connection: Connection) -> float:
        return self._loop.time() + await release(connection, self.topic)

    async def _recover(self, connection: Connection) -> None:
        # A server that has come back empty, and whose clock is behind, begins with smaller ids.
        self._position = earlier(self._position, await last_id(connection, self.topic))

    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Forget what is done; deliver the rest again."""
        again: list[Delivery] = []
        done: list[Delivery] = []
        for handled, outcome in settled:
            if outcome is Outcome.DONE:
                done.append(handled)
            elif handled.raw in self._hand:
                fresh = Delivery(handled.message, handled.attempt + 1, handled.raw)
                if handled.retry_after > 0:
                    self._later(handled.retry_after, fresh)
                else:
                    again.append(fresh)
        if again:
            self._hand.put_again(again)
        self._hand.drop(done)

    def _later(self, seconds: float, fresh: Delivery) -> None:
        def due() -> None:
            self._timers.discard(timer)
            self._hand.put_again([fresh])

        timer = self._loop.call_later(seconds, due)
        self._timers.add(timer)

    async def close(self) -> None:
        """Stop, and drop what was not received."""
        await super().close()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
