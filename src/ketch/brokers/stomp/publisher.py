"""Publisher: events on their way out, until the server has confirmed them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ...errors import BrokerError, BrokerUnavailable, MessageTooLarge
from .connection import MAX_BODY

if TYPE_CHECKING:
    from .connection import Connection


class _Pending:
    """An event that isn't confirmed: what is before and after its number, and when it is given up."""

    __slots__ = ("after", "before", "due", "taken")

    def __init__(self, before: bytes, after: bytes, due: float, taken: asyncio.Future[None]) -> None:
        self.before = before
        self.after = after
        self.due = due
        self.taken = taken


class Publisher:
    """Sends events over whatever connection there is, in order, without waiting for one before the next.

    What was sent and not confirmed when a connection is lost is sent again over the next one. There is one timer for
    all of them.
    """

    def __init__(self, timeout: float, location: str) -> None:
        self._timeout = timeout
        self._location = location
        self._connection: Connection | None = None
        self._pending: dict[int, _Pending] = {}
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def attach(self, connection: Connection) -> None:
        """Use a connection from now on."""
        self._connection = connection
        for number, pending in list(self._pending.items()):
            if pending.taken.done():
                del self._pending[number]
            else:
                connection.write(pending.before + b"%d" % number + pending.after)

    def detach(self) -> None:
        """Be without a connection."""
        self._connection = None

    async def publish(self, before: bytes, after: bytes, size: int) -> None:
        """Send an event, and return when the server has it.

        Raises:
            BrokerUnavailable: the server doesn't take it in time.
            MessageTooLarge: it is over our limit.
            BrokerError: it refuses the event.
        """
        if size > MAX_BODY:
            raise MessageTooLarge(f"{self._location}: an event of {size} bytes is over the limit of {MAX_BODY}")
        loop = asyncio.get_running_loop()
        self._count += 1
        pending = _Pending(before, after, loop.time() + self._timeout, loop.create_future())
        self._pending[self._count] = pending
        if self._connection is not None:
            self._connection.write(before + b"%d" % self._count + after)
        if self._timer is None:
            self._timer = loop.call_at(pending.due, self._expire)
        await pending.taken

    def answered(self, receipt: str, why: str) -> None:
        """Take the server's word for an event: its number, and why it was refused or ""."""
        pending = self._pending.pop(int(receipt), None) if receipt.isdigit() else None
        if pending is not None and not pending.taken.done():
            if why:
                pending.taken.set_exception(BrokerError(f"{self._location}: the server refuses the event: {why}"))
            else:
                pending.taken.set_result(None)

    def _expire(self) -> None:
        """Give up what has waited too long; look again when the next is due."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for number, pending in list(self._pending.items()):
            if not pending.taken.done() and pending.due > now:
                self._timer = loop.call_at(pending.due, self._expire)
                return
            del self._pending[number]
            if not pending.taken.done():
                why = f"{self._location}: the server didn't take an event within {self._timeout:g} s"
                pending.taken.set_exception(BrokerUnavailable(why))

    async def drain(self) -> None:
        """Return when everything was confirmed or given up."""
        while left := [pending.taken for pending in self._pending.values() if not pending.taken.done()]:
            await asyncio.wait(left)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pending.clear()
        self._connection = None
