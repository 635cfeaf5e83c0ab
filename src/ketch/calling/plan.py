"""Plan: all that the calls of one method have in common, worked out at the first of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import Code, ConfigurationError, DeadlineExceeded, Unavailable
from ..selecting import find
from .breaker import Breaker
from .budget import Budget
from .choice import Choice
from .hedging import Hedging

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..codec import Decode, Encode
    from ..errors import StatusError
    from ..policy import CallPolicy, Key
    from ..rpc import Metadata, Method
    from ..selector import SelectorMaker
    from .bulkhead import Bulkhead
    from .roster import Roster


class Plan:
    """How a method's calls are made.

    Attributes:
        service: the name that is called.
        method: what is called there.
        encode, decode, content_type: of its messages.
        policy: complete.
        roster, choice: the candidates, and which of them.
        calls: made so far.
        idempotent: making a call twice does no harm.
        timeout: seconds where a caller doesn't say, None for none.
        breaker, bulkhead: see there; None for no bulkhead.
        key: reads a call's key, None where calls have none.
        hedging: when a call is made at a second instance, None for never.
    """

    __slots__ = (
        "_budget",
        "_own",
        "_retry_on",
        "breaker",
        "bulkhead",
        "calls",
        "choice",
        "content_type",
        "decode",
        "encode",
        "hedging",
        "idempotent",
        "key",
        "method",
        "policy",
        "roster",
        "service",
        "timeout",
    )

    def __init__(
        self,
        service: str,
        method: Method[Any, Any],
        coders: tuple[Encode, Decode, str],
        policy: CallPolicy,
        roster: Roster,
        *,
        selector: str | SelectorMaker,
        labels: Mapping[str, str],
        timeout: float,
        bulkhead: Bulkhead | None = None,
        own: CallPolicy | None = None,
    ) -> None:
        self._own = own
        self.service = service
        self.method = method
        self.encode, self.decode, self.content_type = coders
        self.policy = policy
        self.roster = roster
        self.choice = Choice(policy, find(selector)(), labels)
        roster.join(self.choice)
        self.calls = 0
        self.idempotent = method.idempotent if policy.idempotent is None else policy.idempotent
        self.timeout = (timeout if policy.timeout is None else policy.timeout) or None
        self.breaker = Breaker(f"{service} {method.path}", policy.breaker or 0)
        self.bulkhead = bulkhead
        self.hedging: Hedging | None = None
        if self.idempotent and policy.hedge not in ("off", None) and (policy.attempts or 1) > 1:
            self.hedging = Hedging(None if policy.hedge == "auto" else float(policy.hedge or 0))
        self._budget = Budget(policy.budget or 0)
        self._retry_on = frozenset(Code[name] for name in policy.retry_on or ())
        self.key = None if policy.key is None else _reader(policy.key)

    def is_answer(self, error: StatusError) -> bool:
        """Tell whether an error is what the call ends with, whatever may be tried yet."""
        return not isinstance(error, (Unavailable, DeadlineExceeded)) and not (
            self.idempotent and error.code in self._retry_on
        )

    def worth_retrying(self, error: StatusError) -> bool:
        """Tell whether a call that ended so, and that a server may have looked at, may be made again."""
        return self.idempotent and error.code in self._retry_on and self._budget.take(self.calls)

    def may_hedge(self) -> bool:
        """Take a second call from the budget, if there is one left."""
        return self._budget.take(self.calls)


def _reader(key: Key) -> Callable[[Any, Metadata | None], str]:
    if not isinstance(key, str):
        function = key
        return lambda request, _: str(function(request))
    kind, _, name = key.partition(".")
    if kind == "metadata" and name:
        return lambda _, metadata: str((metadata or {}).get(name, ""))
    if kind == "request" and name:
        return lambda request, _: str(_field(request, name))
    raise ConfigurationError(f"key = {key!r}: it is request.NAME or metadata.NAME")


def _field(request: Any, name: str) -> object:
    """Return a field of a request; one of a message in it as `user.id`."""
    for part in name.split("."):
        if isinstance(request, dict):
            request = request.get(part, "")
        else:
            try:
                request = getattr(request, part)
            except AttributeError:
                raise ConfigurationError(f"key: {type(request).__name__} has no field {part}") from None
    return request
