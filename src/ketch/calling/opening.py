"""Opening: a streaming call is begun at one instance or the other."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from .. import context
from ..conversation import Opened
from ..errors import DeadlineExceeded, Unavailable, Unreachable
from ..rpc import One
from .attempts import Attempts

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..errors import StatusError
    from ..selector import Candidate
    from ..transport import Stream
    from .finder import Finder
    from .optioned import Outgoing
    from .plan import Plan


class _Opening:
    """One streaming call: where it was begun last, and how it is begun again."""

    def __init__(self, plan: Plan, call: Outgoing, attempts: Attempts) -> None:
        self._plan = plan
        self._call = call
        self._attempts = attempts
        self._used: Candidate | None = None

    async def begin(self, failed: tuple[Candidate, StatusError] | None = None) -> Opened:
        stream = await self._attempts.make(self._send, failed)
        return Opened(stream, self._plan.encode, self._plan.decode, self._again)

    async def _send(self, candidate: Candidate, left: float | None) -> Stream:
        self._used = candidate
        call = self._call
        try:
            return await candidate.channel.stream(
                call.name,
                content_type=self._plan.content_type,
                metadata=call.metadata,
                timeout=left,
                compress=call.options.compress,
            )
        except Unreachable as error:
            self._plan.roster.failed(candidate, error)
            raise

    def _again(self, error: StatusError) -> Awaitable[Opened]:
        if self._used is None:
            raise error
        if isinstance(error, Unavailable):
            self._plan.roster.failed(self._used, error)
        return self.begin((self._used, error))


async def begin(finder: Finder, plan: Plan, call: Outgoing) -> Opened:
    """Begin a streaming call.

    Raises:
        StatusError: it can't be begun.
    """
    timeout = _bound(call.timeout)
    if timeout is not None and timeout <= 0:
        raise DeadlineExceeded(f"{call.name}: not called, for no time is left")
    request = call.payload.request if isinstance(call.payload, One) else None
    attempts = Attempts(
        finder,
        plan,
        timeout=timeout,
        began=monotonic(),
        key="" if plan.key is None or request is None else plan.key(request, call.metadata),
        wait_for_ready=call.options.wait_for_ready,
    )
    return await _Opening(plan, call, attempts).begin()


def _bound(timeout: float | None) -> float | None:
    # A handler's own deadline bounds the calls it makes: nobody waits for their answers after it.
    left = context.current().remaining()
    if left is None:
        return timeout
    return left if timeout is None else min(left, timeout)
