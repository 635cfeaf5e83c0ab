"""Race: one unary call that may be made twice, until one of the two is answered."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..context import ReplyMetadata
from ..errors import Internal, StatusError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..selector import Candidate
    from .attempts import Attempts
    from .hedging import Hedging
    from .plan import Plan
    from .unary import UnaryCall

    #: Makes what a call takes that is made more than once, of its terms and when it was begun; most aren't.
    Prepare = Callable[..., tuple[UnaryCall, Attempts]]


class Race:
    """A call in its caller's task, and what may come to its help; see `Hedging`.

    Attributes:
        began: on `time.monotonic()`'s clock.
        done: it has ended, or is past help.
    """

    __slots__ = (
        "_attempts",
        "_cancelling",
        "_error",
        "_first",
        "_help",
        "_plan",
        "_prepare",
        "_reply",
        "_task",
        "_terms",
        "began",
        "done",
    )

    def __init__(self, plan: Plan, first: Candidate, prepare: Prepare, terms: tuple[Any, ...]) -> None:
        self.began = monotonic()
        self.done = False
        self._plan = plan
        self._first = first
        self._prepare = prepare
        self._terms = terms
        self._attempts: tuple[UnaryCall, Attempts] | None = None
        self._task = task = asyncio.current_task()
        self._cancelling = 0 if task is None else task.cancelling()
        self._help: asyncio.Task[None] | None = None
        self._reply: bytes | None = None
        self._error: StatusError | None = None

    def end(self) -> None:
        """Hear that the call has ended, however it did: help comes too late."""
        self.done = True
        if self._help is not None:
            self._help.cancel()

    def overtaken(self, hedging: Hedging) -> bytes:
        """Return the second instance's answer, as the first one's call was cancelled because of it.

        Raises:
            CancelledError: it was cancelled for another reason, which is being handled.
            StatusError: the answer is an error.
        """
        if not self._settled or self._task is None or self._task.uncancel() > self._cancelling:
            raise  # noqa: PLE0704 - the one that is being handled
        hedging.took(monotonic() - self.began)
        self._plan.roster.failed(self._first, None)
        return self._answer()

    async def lost(self, error: StatusError) -> bytes:
        """Go on after the first instance failed: with the help that is under way, or elsewhere.

        Raises:
            StatusError: what the call ends with.
        """
        self._task = None  # there is nothing to be woken from any more
        if self._help is not None:
            await asyncio.wait([self._help])
            if self._settled:
                return self._answer()
        self.done = True
        call, attempts = self._made()
        return await attempts.make(call.send, (self._first, error))

    def hedge(self) -> None:
        """Make the call at another instance as well, if there is one and the budget allows."""
        call, attempts = self._made()
        rival = attempts.rival()
        if rival is not None and self._plan.may_hedge():
            attempts.tried(rival)
            name = f"ketch hedge of {self._plan.method.path}"
            self._help = asyncio.create_task(self._overtake(call, attempts, rival), name=name)

    async def _overtake(self, call: UnaryCall, attempts: Attempts, rival: Candidate) -> None:
        apart = None if call.received is None else ReplyMetadata()
        reply, answer = None, None
        try:
            reply = await call.send(rival, attempts.left(), apart)
        except StatusError as error:
            if not self._plan.is_answer(error):
                return  # the first one's end decides
            answer = error
        if self.done:
            return
        if call.received is not None and apart is not None:
            call.received.fill(apart.metadata, apart.trailers)
        self._reply, self._error = reply, answer
        if self._task is not None:
            self._task.cancel()

    def _made(self) -> tuple[UnaryCall, Attempts]:
        if self._attempts is None:
            self._attempts = self._prepare(*self._terms, self.began)
            self._attempts[1].tried(self._first)
        return self._attempts

    @property
    def _settled(self) -> bool:
        return self._reply is not None or self._error is not None

    def _answer(self) -> bytes:
        if self._reply is None:
            raise self._error or Internal("a hedge ended without anything")
        return self._reply
