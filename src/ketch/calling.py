"""Calling: how a client makes its calls, with a plan for each method."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from . import context
from .attempts import USUAL, Attempts, CallOptions, ready
from .codec import JSON, PROTOBUF
from .context import wanted
from .conversation import Opened
from .errors import CodecError, DeadlineExceeded, Internal, NotRunning, StatusError, Unavailable, Unreachable
from .finder import Finder
from .plan import Plan
from .race import Race
from .rpc import Method, One
from .unary import GAIN, UnaryCall

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .codec import Decode, Encode
    from .optioned import Outgoing
    from .options import Options
    from .rpc import Metadata
    from .selector import Candidate
    from .transport import Stream

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
        self._options = options
        self._plans: dict[tuple[str, Method[Any, Any]], Plan] = {}
        self._own: dict[tuple[str, Method[Any, Any], CallOptions], Plan] = {}

    def plan(self, service: str, method: Method[Any, Any], options: CallOptions) -> Plan:
        """Return the plan of a method."""
        if options.policy is None:
            plan = self._plans.get((service, method))
            if plan is None:
                plan = self._plans[service, method] = self._make_plan(service, method, options)
            return plan
        plan = self._own.get((service, method, options))
        if plan is None:
            plan = self._own[service, method, options] = self._make_plan(service, method, options)
        return plan

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
        plan = self._plans.get((service, method)) if options is USUAL else None
        if plan is None:
            plan = self.plan(service, method, options)
        body = plan.encode(request)
        left = context.current().remaining()
        if left is not None:
            # A handler's own deadline bounds the calls it makes: nobody waits for their answers after it.
            timeout = left if timeout is None else min(left, timeout)
        plan.calls += 1
        if plan.bulkhead is not None or plan.breaker.open or plan.hedging is not None:
            reply = await self._guarded(plan, plan.key(request, metadata), body, timeout, metadata, options)
        else:
            reply = await self._straight(plan, plan.key(request, metadata), body, timeout, metadata, options)
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
                plan.roster.failed(candidate, error)
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
        self.check_running()
        call = UnaryCall(plan, body, metadata, wanted(), compress=options.compress)
        attempts = Attempts(
            self.finder, plan, timeout=timeout, began=began, key=key, wait_for_ready=options.wait_for_ready
        )
        try:
            return await attempts.make(call.send, failed)
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
        """Make a call that may be hedged, or that a breaker or a bulkhead stands before."""
        self.check_running()
        breaker, bulkhead = plan.breaker, plan.bulkhead
        tested = breaker.open
        if tested:
            breaker.check()
        if bulkhead is not None:
            timeout = await bulkhead.enter(timeout)
        try:
            if plan.hedging is None:
                reply = await self._straight(plan, key, body, timeout, metadata, options)
            else:
                reply = await self._raced(plan, key, body, timeout, metadata, options)
        except (Unavailable, DeadlineExceeded):
            raise
        except StatusError:
            if tested and breaker.open:
                breaker.answered()
            raise
        finally:
            if bulkhead is not None:
                bulkhead.leave()
        if tested and breaker.open:
            breaker.answered()
        return reply

    async def _raced(
        self,
        plan: Plan,
        key: str,
        body: bytes,
        timeout: float | None,
        metadata: Metadata | None,
        options: CallOptions,
    ) -> bytes:
        call = UnaryCall(plan, body, metadata, wanted(), compress=options.compress)
        attempts = Attempts(
            self.finder, plan, timeout=timeout, began=monotonic(), key=key, wait_for_ready=options.wait_for_ready
        )
        candidate = plan.choice.pick(key)
        try:
            if candidate is None or plan.hedging is None:
                return await attempts.make(call.send)
            return await Race(plan, call, attempts, candidate).run(plan.hedging)
        except (Unavailable, DeadlineExceeded):
            plan.breaker.failed(plan.calls)
            raise

    async def open(self, call: Outgoing) -> Opened:
        """Start a streaming call."""
        self.check_running()
        plan = self.plan(call.service, call.method, call.options)
        plan.calls += 1

        used: list[Candidate] = []

        async def send(candidate: Candidate, left: float | None) -> Stream:
            used[:] = [candidate]
            try:
                return await candidate.channel.stream(
                    call.name,
                    content_type=plan.content_type,
                    metadata=call.metadata,
                    timeout=left,
                    compress=call.options.compress,
                )
            except Unreachable as error:
                plan.roster.failed(candidate, error)
                raise

        async def begin(failed: tuple[Candidate, StatusError] | None = None) -> Opened:
            return Opened(await attempts.make(send, failed), plan.encode, plan.decode, again)

        def again(error: StatusError) -> Awaitable[Opened]:
            if isinstance(error, Unavailable):
                plan.roster.failed(used[0], error)
            return begin((used[0], error))

        attempts = Attempts(
            self.finder,
            plan,
            timeout=_bound(call.timeout),
            began=monotonic(),
            key=plan.key(call.payload.request, call.metadata) if isinstance(call.payload, One) else "",
            wait_for_ready=call.options.wait_for_ready,
        )
        return await begin()

    def ready(self, service: str, timeout: float | None) -> Awaitable[None]:
        """Wait until an instance of a service can be reached."""
        self.check_running()
        plan = self._plans.get((service, _NOTHING)) or self._make_plan(service, _NOTHING, USUAL)
        self._plans[service, _NOTHING] = plan
        return ready(self.finder, plan, timeout)

    def check_running(self) -> None:
        """Raise `NotRunning` unless the client runs."""
        if not self.running:
            raise NotRunning("the client is used before it was opened or after it was closed")

    async def close(self) -> None:
        """Close the channels. Closing twice is no error."""
        for plan in (*self._plans.values(), *self._own.values()):
            if plan.hedging is not None:
                plan.hedging.close()
        await self.finder.close()

    def _make_plan(self, service: str, method: Method[Any, Any], options: CallOptions) -> Plan:
        known = self._options
        return Plan(
            service,
            method,
            self._coders(method),
            known.policies.of(service, method.path, options.policy),
            self.finder.roster(service),
            selector=known.selector,
            labels=known.labels,
            timeout=known.request_timeout,
        )

    def _coders(self, method: Method[Any, Any]) -> tuple[Encode, Decode, str]:
        binary = hasattr(method.request, "DESCRIPTOR")
        codec = method.codec or self._options.codecs.find(PROTOBUF if binary else JSON)
        return codec.encoder(method.request), codec.decoder(method.reply), codec.content_type


def _bound(timeout: float | None) -> float | None:
    # A handler's own deadline bounds the calls it makes: nobody waits for their answers after it.
    left = context.current().remaining()
    if left is None:
        return timeout
    return left if timeout is None else min(left, timeout)
