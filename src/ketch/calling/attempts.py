"""Attempts: a call is made again where that does no harm and may help.

What no server has looked at is made elsewhere whatever it is (gRPC's "transparent retry", A6): during a rolling restart
the calls that meet a closed port, or are refused unseen by an instance that is stopping, go to the next one. What a
server may have looked at is made again only if the method is idempotent, so often as the policy says and the budget
allows.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from ..errors import DeadlineExceeded, StatusError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..policy import CallPolicy
    from ..selector import Candidate
    from .finder import Finder
    from .plan import Plan

T = TypeVar("T")

#: Seconds between two rounds through the instances while a call waits for one to be ready; it doubles up to the second.
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0

#: Trailing metadata in which a server says, in milliseconds, when to try again; negative for never (gRPC's A6).
_PUSHBACK: Final = "grpc-retry-pushback-ms"

#: The longest time that a server may have a call wait, in seconds; more of it is taken for never.
_LONGEST_PUSHBACK: Final = 60.0


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How a stub's calls are made.

    Attributes:
        wait_for_ready: where no instance can be reached, wait for one until the call's deadline instead of failing
            (gRPC's wait-for-ready).
        compress: whether requests are compressed, None as the transport is configured.
        bounded: a unary call without a timeout gets the policy's, or the client's default.
        policy: the stub's own.
    """

    wait_for_ready: bool = False
    compress: bool | None = None
    bounded: bool = True
    policy: CallPolicy | None = None


USUAL: Final = CallOptions()


class Attempts:
    """The attempts of one call.

    Args:
        finder: knows the instances.
        plan: the method's.
        timeout: seconds for all of it, None for no limit.
        began: when the call was begun, on `time.monotonic()`'s clock.
        key: the call's.
        wait_for_ready: wait for an instance.
    """

    __slots__ = ("_began", "_finder", "_key", "_looked_at", "_pause", "_plan", "_timeout", "_tried", "_wait")

    def __init__(
        self, finder: Finder, plan: Plan, *, timeout: float | None, began: float, key: str, wait_for_ready: bool
    ) -> None:
        self._finder = finder
        self._plan = plan
        self._timeout = timeout
        self._began = began
        self._key = key
        self._wait = wait_for_ready or bool(plan.policy.wait_for_ready)
        self._tried: set[Candidate] = set()
        self._looked_at = 0
        self._pause = _FIRST_PAUSE

    def left(self) -> float | None:
        """Return the seconds left, None for no limit."""
        return None if self._timeout is None else max(0.0, self._timeout - (time.monotonic() - self._began))

    def rival(self) -> Candidate | None:
        """Return a candidate that wasn't tried, None where there is none.

        One whose channel leads to any of several instances may be tried again: another one may answer.
        """
        candidate = self._plan.choice.pick_but(self._tried, self._key)
        return candidate or next((one for one in self._tried if one.channel.shared), None)

    def tried(self, candidate: Candidate) -> None:
        """Count a candidate as tried."""
        self._tried.add(candidate)

    async def make(
        self,
        send: Callable[[Candidate, float | None], Awaitable[T]],
        failed: tuple[Candidate, StatusError] | None = None,
    ) -> T:
        """Make the call at one instance after the other until it is answered.

        Args:
            send: makes the call at a candidate within so many seconds.
            failed: where it was tried in vain, and why it failed there.

        Raises:
            Unreachable: no instance can be reached, and the call doesn't wait for one.
            DeadlineExceeded: it waited as long as it was allowed.
            StatusError: what the call ended with.
        """
        error: StatusError | None = None
        if failed is not None:
            self._tried.add(failed[0])
            error = failed[1]
        while True:
            try:
                candidate = await self._first() if error is None else await self._next(error)
                return await send(candidate, self.left())
            except StatusError as raised:
                if raised is error:
                    raise
                error = raised

    async def _first(self) -> Candidate:
        candidate = self._plan.choice.pick(self._key)
        if candidate is None:
            await self._finder.look(self._plan.service, self.left())
            candidate = self._plan.choice.pick(self._key)
        if candidate is None:
            raise self._finder.nobody(self._plan)
        self._tried.add(candidate)
        return candidate

    async def _next(self, error: StatusError) -> Candidate:
        """Return where to try after an error, or raise it."""
        if not isinstance(error, Unreachable):
            self._looked_at += 1
            if self._looked_at >= (self._plan.policy.attempts or 1) or not self._plan.worth_retrying(error):
                raise error
            await self._back_off(error)
            candidate = self.rival()
            if candidate is None:
                self._tried.clear()  # the one that failed may do better now
                candidate = self._plan.choice.pick(self._key)
            if candidate is None:
                raise error
            self._tried.add(candidate)
            return candidate
        candidate = self._plan.choice.pick_but(self._tried, self._key)
        if candidate is not None:
            self._tried.add(candidate)
            return candidate
        if not self._wait:
            raise error
        return await self._waited(error)

    async def _waited(self, error: StatusError) -> Candidate:
        left = self.left()
        if left == 0:
            raise DeadlineExceeded(f"not ready before the deadline: {error}") from error
        await self._finder.wait(self._pause if left is None else min(self._pause, left))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        self._tried.clear()
        return await self._first()

    async def _back_off(self, error: StatusError) -> None:
        told = error.metadata.get(_PUSHBACK)
        seconds = (self._plan.policy.backoff or 0.0) * 2 ** (self._looked_at - 1) * random.random()  # noqa: S311 - spreading load is no secret
        if told is not None:
            try:
                seconds = int(told) / 1000
            except (ValueError, OverflowError):
                seconds = -1.0
            if not 0 <= seconds <= _LONGEST_PUSHBACK:
                raise error
        left = self.left()
        if left is not None and seconds >= left:
            raise error
        await asyncio.sleep(min(seconds, _LONGEST_PAUSE) if told is None else seconds)


async def ready(finder: Finder, plan: Plan, timeout: float | None) -> None:
    """Wait until an instance can be reached.

    Raises:
        DeadlineExceeded: none could be within `timeout` seconds.
    """

    def send(candidate: Candidate, left: float | None) -> Awaitable[None]:
        return candidate.channel.ready(left)

    attempts = Attempts(finder, plan, timeout=timeout, began=time.monotonic(), key="", wait_for_ready=True)
    await attempts.make(send)
