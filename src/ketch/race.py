"""Race: one unary call that may be made twice, until one of the two is answered."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from .context import ReplyMetadata
from .errors import StatusError
from .hedging import Outcome

if TYPE_CHECKING:
    from .attempts import Attempts
    from .hedging import Hedging
    from .plan import Plan
    from .selector import Candidate
    from .unary import UnaryCall


class Race:
    """A call in its caller's task, and what may come to its help; see `Hedging`."""

    __slots__ = ("_attempts", "_call", "_cancelling", "_first", "_help", "_outcome", "_plan", "_task", "began", "done")

    def __init__(self, plan: Plan, call: UnaryCall, attempts: Attempts, first: Candidate) -> None:
        self.began = monotonic()
        self.done = False
        self._plan = plan
        self._call = call
        self._attempts = attempts
        self._first = first
        self._task = asyncio.current_task()
        self._cancelling = 0 if self._task is None else self._task.cancelling()
        self._help: asyncio.Task[None] | None = None
        self._outcome: Outcome | None = None

    async def run(self, hedging: Hedging) -> bytes:
        """Return the first answer.

        Raises:
            StatusError: what the call ended with.
        """
        hedging.watch(self)
        self._attempts.tried(self._first)
        try:
            return await self._run(hedging)
        finally:
            self.done = True
            if self._help is not None:
                self._help.cancel()

    async def _run(self, hedging: Hedging) -> bytes:
        attempts, call, first = self._attempts, self._call, self._first
        failed: StatusError
        try:
            reply = await call.send(first, attempts.left())
        except asyncio.CancelledError:
            if self._outcome is None or self._task is None or self._task.uncancel() > self._cancelling:
                raise
            hedging.took(monotonic() - self.began)
            self._plan.roster.failed(first, None)
            return _settled(self._outcome)
        except StatusError as error:
            if self._plan.is_answer(error):
                raise
            failed = error
        else:
            hedging.took(monotonic() - self.began)
            return reply
        self._task = None  # the first one has ended: there is nothing to be woken from
        if self._help is not None:
            await asyncio.wait([self._help])
            if self._outcome is not None:
                return _settled(self._outcome)
        self.done = True
        return await attempts.make(call.send, (first, failed))

    def hedge(self) -> None:
        """Make the call at another instance as well, if there is one and the budget allows."""
        if self._plan.may_hedge():
            self._help = asyncio.create_task(self._overtake(), name=f"ketch hedge of {self._plan.method.path}")

    async def _overtake(self) -> None:
        rival = self._attempts.rival()
        if rival is None:
            return
        received = self._call.received
        apart = None if received is None else ReplyMetadata()
        try:
            outcome = Outcome(await self._call.send(rival, self._attempts.left(), apart))
        except StatusError as error:
            if not self._plan.is_answer(error):
                return  # the first one's end decides
            outcome = Outcome(error=error)
        if self.done:
            return
        if received is not None and apart is not None:
            received.fill(apart.metadata, apart.trailers)
        self._outcome = outcome
        if self._task is not None:
            self._task.cancel()


def _settled(outcome: Outcome) -> bytes:
    if outcome.error is not None:
        raise outcome.error
    return outcome.reply
