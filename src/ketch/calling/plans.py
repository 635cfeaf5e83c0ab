"""Plans: one for each method that a client calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..codec import JSON, PROTOBUF
from ..selectors.consistent_hash import consistent_hash
from .bulkhead import Bulkhead
from .plan import Plan

if TYPE_CHECKING:
    from ..codec import Decode, Encode
    from ..options import Options
    from ..policy import CallPolicy
    from ..rpc import Method
    from .attempts import CallOptions
    from .finder import Finder

#: Plans kept of stubs with policies of their own; a program that makes a policy for each call must not fill the memory.
_OWN: Final = 4096


class Plans:
    """A client's plans, made at the first call of each method.

    Attributes:
        usual: those of stubs without a policy of their own.
    """

    def __init__(self, options: Options, finder: Finder) -> None:
        self.usual: dict[tuple[str, Method[Any, Any]], Plan] = {}
        self._own: dict[tuple[str, Method[Any, Any], int], Plan] = {}
        self._bulkheads: dict[tuple[str, str], Bulkhead] = {}
        self._options = options
        self._finder = finder

    def find(self, service: str, method: Method[Any, Any], options: CallOptions) -> Plan:
        """Return the plan of a method, for the calls of a stub with such options.

        Raises:
            ConfigurationError: its policy can't be followed.
            CodecError: no codec carries its messages.
        """
        if options.policy is None:
            plan = self.usual.get((service, method))
            if plan is None:
                plan = self.usual[service, method] = self._make(service, method, options)
            return plan
        # The plan holds the policy, so its identity stays its own.
        key = service, method, id(options.policy)
        own = self._own.get(key)
        if own is None:
            if len(self._own) >= _OWN:
                self._own.clear()
            own = self._own[key] = self._make(service, method, options)
        return own

    def close(self) -> None:
        """Let go of what the plans wait for."""
        for plan in (*self.usual.values(), *self._own.values()):
            if plan.hedging is not None:
                plan.hedging.close()

    def _make(self, service: str, method: Method[Any, Any], options: CallOptions) -> Plan:
        known = self._options
        policy = known.policies.of(service, method.path, options.policy)
        selector = policy.selector or known.selector
        roster = self._finder.roster(service)
        if selector in ("consistent_hash", consistent_hash):
            roster.widen()
        return Plan(
            service,
            method,
            self._coders(method),
            policy,
            roster,
            selector=selector,
            labels=known.labels,
            timeout=known.request_timeout,
            bulkhead=self._bulkhead(service, method, policy, options.policy),
            own=options.policy,
        )

    def _bulkhead(
        self, service: str, method: Method[Any, Any], policy: CallPolicy, own: CallPolicy | None
    ) -> Bulkhead | None:
        """Return what bounds a method's calls: shared by all that the policy which says so is for."""
        if not policy.max_in_flight:
            return None
        if own is not None and own.max_in_flight is not None:
            return Bulkhead(f"{service} {method.path}", policy.max_in_flight, policy.max_waiting or 0)
        whose = self._options.policies.sayer("max_in_flight", service, method.path) or service
        bulkhead = self._bulkheads.get((service, whose))
        if bulkhead is None:
            name = service if whose == service else f"{service} {whose}"
            bulkhead = Bulkhead(name, policy.max_in_flight, policy.max_waiting or 0)
            self._bulkheads[service, whose] = bulkhead
        return bulkhead

    def _coders(self, method: Method[Any, Any]) -> tuple[Encode, Decode, str]:
        binary = hasattr(method.request, "DESCRIPTOR")
        codec = method.codec or self._options.codecs.find(PROTOBUF if binary else JSON)
        return codec.encoder(method.request), codec.decoder(method.reply), codec.content_type
