"""Publisher: events on their way out, until the server has confirmed them.

ActiveMQ takes the frames of a connection one after the other, and writes each event to its disk before it confirms it.
So what is published while it writes goes out in one transaction, which is written, and confirmed, once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from ...errors import BrokerError, BrokerUnavailable, MessageTooLarge
from .connection import MAX_BODY

if TYPE_CHECKING:
    from .connection import Connection

#: Transactions under way: one that is written, one that is sent.
_UNDER_WAY = 2

#: Events, and bytes of their bodies, of a transaction.
_BATCH = 256
_BATCH_BYTES = 1024 * 1024


class _Pending:
    """An event that isn't confirmed: its frame before and after the header that confirms it, and its limit in time."""

    __slots__ = ("after", "alone", "before", "due", "taken")

    def __init__(self, before: bytes, after: bytes, due: float, *, alone: bool) -> None:
        self.before = before
        self.after = after
        self.due = due
        self.alone = alone
        self.taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Publisher:
    """Sends events over whatever connection there is, in order.

    What was sent and not confirmed when a connection is lost is sent again over the next one, one by one: should the
    server refuse one of them, the others don't suffer for it. There is one timer for all.
    """

    def __init__(self, timeout: float, location: str) -> None:
        self._timeout = timeout
        self._location = location
        self._connection: Connection | None = None
        self._waiting: deque[_Pending] = deque()
        self._flying: dict[int, list[_Pending]] = {}
        self._count = 0
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None

    def attach(self, connection: Connection) -> None:
        """Use a connection from now on."""
        self._connection = connection
        self._pump()

    def detach(self) -> None:
        """Be without a connection."""
        self._connection = None
        for number in reversed(self._flying):
            self._apart(self._flying[number])
        self._flying.clear()

    def _apart(self, batch: list[_Pending]) -> None:
        """Have events sent again, one by one."""
        for pending in batch:
            pending.alone = True
        self._waiting.extendleft(reversed(batch))

    async def publish(self, before: bytes, after: bytes, size: int, *, alone: bool = False) -> None:
        """Send an event, and return when the server has it.

        Raises:
            BrokerUnavailable: the server doesn't take it in time.
            MessageTooLarge: it is over our limit.
            BrokerError: it refuses the event.
        """
        if size > MAX_BODY:
            raise MessageTooLarge(f"{self._location}: an event of {size} bytes is over the limit of {MAX_BODY}")
        loop = asyncio.get_running_loop()
        pending = _Pending(before, after, loop.time() + self._timeout, alone=alone)
        self._waiting.append(pending)
        if not self._pumping and len(self._flying) < _UNDER_WAY:
            self._pumping = True
            loop.call_soon(self._pump)  # with what else is published in this turn
        if self._timer is None:
            self._timer = loop.call_at(pending.due, self._expire)
        await pending.taken

    def _pump(self) -> None:
        self._pumping = False
        connection = self._connection
        while connection is not None and len(self._flying) < _UNDER_WAY and (batch := self._next()):
            self._count += 1
            number = self._count
            self._flying[number] = batch
            if len(batch) == 1:
                connection.write(b"%breceipt:%d\n%b" % (batch[0].before, number, batch[0].after))
                continue
            transaction = b"transaction:%d\n" % number
            frames = [b"BEGIN\n%b\n\0" % transaction]
            frames += [b"".join((pending.before, transaction, pending.after)) for pending in batch]
            frames.append(b"COMMIT\n%breceipt:%d\n\n\0" % (transaction, number))
            connection.write(b"".join(frames))

    def _next(self) -> list[_Pending]:
        """Take what can go out together."""
        batch: list[_Pending] = []
        size = 0
        waiting = self._waiting
        while waiting and len(batch) < _BATCH and size < _BATCH_BYTES:
            if waiting[0].alone and batch:
                break
            pending = waiting.popleft()
            if pending.taken.done():
                continue
            batch.append(pending)
            size += len(pending.after)
            if pending.alone:
                break
        return batch

    def answered(self, receipt: str, why: str) -> None:
        """Take the server's word for a transaction or an event: its number, and why it was refused or ""."""
        batch = self._flying.pop(int(receipt), None) if receipt.isdigit() else None
        if batch is None:
            return
        if why and len(batch) > 1:
            self._apart(batch)
        else:
            for pending in batch:
                if pending.taken.done():
                    continue
                if why:
                    error = BrokerError(f"{self._location}: the server refuses the event: {why}")
                    pending.taken.set_exception(error)
                else:
                    pending.taken.set_result(None)
        self._pump()

    def _all(self) -> list[_Pending]:
        flying = [pending for batch in self._flying.values() for pending in batch]
        return [pending for pending in (*flying, *self._waiting) if not pending.taken.done()]

    def _expire(self) -> None:
        """Give up what has waited too long; look again when the next is due."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for pending in self._all():
            if pending.due > now:
                self._timer = loop.call_at(pending.due, self._expire)
                return
            why = f"{self._location}: the server didn't take an event within {self._timeout:g} s"
            pending.taken.set_exception(BrokerUnavailable(why))

    async def drain(self) -> None:
        """Return when everything was confirmed or given up."""
        while left := [pending.taken for pending in self._all()]:
            await asyncio.wait(left)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._flying.clear()
        self._waiting.clear()
        self._connection = None
