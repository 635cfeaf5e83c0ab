"""Calling: how a client makes its calls, with a plan for each method."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from .. import context
from ..context import wanted
from ..errors import CodecError, DeadlineExceeded, Internal, NotRunning, StatusError, Unavailable
from ..rpc import Method
from .attempts import USUAL, Attempts, CallOptions, ready
from .finder import Finder
from .opening import begin
from .plans import Plans
from .race import Race
from .unary import GAIN, UnaryCall

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..context import ReplyMetadata
    from ..conversation import Opened
    from ..options import Options
    from ..rpc import Metadata
    from ..selector import Candidate
    from .hedging import Hedging
    from .optioned import Outgoing
    from .plan import Plan

Q = TypeVar("Q")
P = TypeVar("P")

#: What is waited for where no method is called.
_NOTHING: Method[Any, Any] = Method("", "", dict, dict)


class Calling:
    """Makes calls: where to, how often, and what becomes of those that fail.

    Args:
        options: the client's; its registry and transport are open while calls are made.
    """

    def __init__(self, options: Options) -> None:
        self.running = False
        self.finder = Finder(options.registry, options.transport, options.policies, options.id)
        self.plans = Plans(options, self.finder)
        self._usual = self.plans.usual

    async def unary(
        self,
        service: str,
        method: Method[Q, P],
        request: Q,
        timeout: float | None,
        metadata: Metadata | None,
        options: CallOptions,
    ) -> P:
        """Make a call with one reply."""
        plan = self._usual.get((service, method)) if options is USUAL else None
        if plan is None:
            plan = self.plans.find(service, method, options)
        body = plan.encode(request)
        left = context.current().remaining()
        if left is not None:
            # A handler's own deadline bounds the calls it makes: nobody waits for their answers after it.
            timeout = left if timeout is None else min(left, timeout)
        if timeout is not None and timeout <= 0:
            raise DeadlineExceeded(f"{method.path}: not called, for no time is left")
        plan.calls += 1
        key = "" if plan.key is None else plan.key(request, metadata)
        if plan.bulkhead is not None or plan.breaker.open:
            reply = await self._guarded(plan, key, body, timeout, metadata, options)
        elif plan.hedging is not None:
            reply = await self._raced(plan, plan.hedging, key, body, timeout, metadata, options)
        else:
            reply = await self._straight(plan, key, body, timeout, metadata, options)
        try:
            decoded: P = plan.decode(reply)
        except CodecError as error:
            raise Internal(f"{method.path}: the reply is wrong: {error}") from error
        return decoded

    async def _straight(
        self,
        plan: Plan,
        key: str,
        body: bytes,
        timeout: float | None,
        metadata: Metadata | None,
        options: CallOptions,
    ) -> bytes:
        """Make a call that mostly is made once: what `UnaryCall.send` does, without the objects that take care."""
        failed: tuple[Candidate, StatusError] | None = None
        candidate = plan.choice.pick(key)
        began = monotonic()
        if candidate is not None:
            candidate.in_flight += 1
            try:
                reply = await candidate.channel.unary(
                    plan.method.path,
                    body,
                    content_type=plan.content_type,
                    metadata=metadata,
                    timeout=timeout,
                    received=wanted(),
                    compress=options.compress,
                )
            except (Unavailable, DeadlineExceeded) as error:
                plan.roster.failed(candidate, error, monotonic() - began)
                failed = candidate, error
            except StatusError as error:
                candidate.failures = 0
                if plan.is_answer(error):
                    raise
                failed = candidate, error
            else:
                candidate.failures = 0
                candidate.latency += GAIN * (monotonic() - began - candidate.latency)
                return reply
            finally:
                candidate.in_flight -= 1
        return await self._again(plan, key, body, timeout, metadata, options, began, failed)

    async def _again(
        self,
        plan: Plan,
        key: str,
        body: bytes,
        timeout: float | None,
        metadata: Metadata | None,
        options: CallOptions,
        began: float,
        failed: tuple[Candidate, StatusError] | None,
    ) -> bytes:
        """Make a call that no instance is known for, or that failed at the first one."""
        self.check_running()
        call, attempts = self._prepare(plan, key, body, timeout, metadata, options, wanted(), began)
        try:
            return await attempts.make(call.send, failed)
        except (Unavailable, DeadlineExceeded):
            plan.breaker.failed(plan.calls)
            raise

    def _prepare(
        self,
        plan: Plan,
        key: str,
        body: bytes,
        timeout: float | None,
        metadata: Metadata | None,
        options: CallOptions,
        received: ReplyMetadata | None,
        began: float,
    ) -> tuple[UnaryCall, Attempts]:
        wait = options.wait_for_ready
        attempts = Attempts(self.finder, plan, timeout=timeout, began=began, key=key, wait_for_ready=wait)
        return UnaryCall(plan, body, metadata, received, compress=options.compress), attempts

    async def _raced(
        self,
        plan: Plan,
        hedging: Hedging,
        key: str,
        body: bytes,
        timeout: float | None,
        metadata: Metadata | None,
        options: CallOptions,
    ) -> bytes:
        """Make a call that may be hedged; as `_straight`, for the same reason."""
        first = plan.choice.pick(key)
        if first is None:
            return await self._again(plan, key, body, timeout, metadata, options, monotonic(), None)
        received = wanted()  # a hedge begins in nobody's context
        race = Race(plan, first, self._prepare, (plan, key, body, timeout, metadata, options, received))
        hedging.watch(race)
        first.in_flight += 1
        try:
            reply = await first.channel.unary(
                plan.method.path,
                body,
                content_type=plan.content_type,
                metadata=metadata,
                timeout=timeout,
                received=received,
                compress=options.compress,
            )
            first.failures = 0
            took = monotonic() - race.began
            first.latency += GAIN * (took - first.latency)
            hedging.took(took)
        except asyncio.CancelledError:
            return race.overtaken(hedging)
        except StatusError as error:
            return await self._lost(plan, race, first, error)
        else:
            return reply
        finally:
            first.in_flight -= 1
            race.end()

    async def _lost(self, plan: Plan, race: Race, first: Candidate, error: StatusError) -> bytes:
        unanswered = isinstance(error, (Unavailable, DeadlineExceeded))
        if unanswered:
            plan.roster.failed(first, error, monotonic() - race.began)
        else:
            first.failures = 0
        if plan.is_answer(error):
            raise error
        try:
            return await race.lost(error)
        except (Unavailable, DeadlineExceeded):
            plan.breaker.failed(plan.calls)
            raise

    async def _guarded(
        self,
        plan: Plan,
        key: str,
        body: bytes,
        timeout: float | None,
        metadata: Metadata | None,
        options: CallOptions,
    ) -> bytes:
        """Make a call that a breaker or a bulkhead stands before."""
        self.check_running()
        breaker, bulkhead = plan.breaker, plan.bulkhead
        if breaker.open:
            breaker.check()
        if bulkhead is not None:
            timeout = await bulkhead.enter(timeout)
        try:
            if plan.hedging is None:
                reply = await self._straight(plan, key, body, timeout, metadata, options)
            else:
                reply = await self._raced(plan, plan.hedging, key, body, timeout, metadata, options)
        except StatusError as error:
            if breaker.open and not isinstance(error, (Unavailable, DeadlineExceeded)):
                breaker.answered()
            raise
        finally:
            if bulkhead is not None:
                bulkhead.leave()
        if breaker.open:
            breaker.answered()
        return reply

    async def open(self, call: Outgoing) -> Opened:
        """Start a streaming call."""
        self.check_running()
        plan = self.plans.find(call.service, call.method, call.options)
        plan.calls += 1

        return await begin(self.finder, plan, call)

    def ready(self, service: str, timeout: float | None) -> Awaitable[None]:
        """Wait until an instance of a service can be reached."""
        self.check_running()
        return ready(self.finder, self.plans.find(service, _NOTHING, USUAL), timeout)

    def check_running(self) -> None:
        """Raise `NotRunning` unless the client runs."""
        if not self.running:
            raise NotRunning("the client is used before it was opened or after it was closed")

    async def close(self) -> None:
        """Close the channels. Closing twice is no error."""
        self.plans.close()
        await self.finder.close()
