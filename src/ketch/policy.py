"""CallPolicy: how calls to a service, or to one method of it, are made; and where that is written down.

What nobody says is as it is by default, which needs no tuning. What is said is looked up from the particular to the
general, field by field: the stub's own, the method's, the contract's, the service's, that of all calls.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from .errors import Code, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .selector import SelectorMaker

#: What a call's key is: of a request, or the same for all calls of a stub.
Key: TypeAlias = "str | Callable[[Any], str]"

Hedge: TypeAlias = "float | Literal['auto', 'off']"


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """How calls are made. None leaves a field to the next more general policy.

    `subset`, `connections`, `eject_after` and `eject_time` are said for a service, not for a method or a stub.

    Where to:

    Attributes:
        selector: picks the instance: `least_busy`, `round_robin`, `random`, `consistent_hash`, or what makes one.
        key: for `consistent_hash`: `request.NAME`, a field of the request; `metadata.NAME`, an entry of the call's
            metadata; in code also a function of the request.
        match: labels that an instance must have, `version` among them; a call fails as `Unreachable` where none has.
        split: shares of the calls by a label's value, such as `{"version": {"1.2.0": 95, "1.3.0": 5}}`; what isn't
            named gets nothing, and what isn't there has its share go to the others.
        prefer: a label that should be equal to this program's own, such as `host` or `zone`; those that have it are
            called as long as one of them is well.
        subset: instances that this client knows of a service at most, so that connections stay bounded; 0 for all.
        connections: to each instance.

    How long, and how often:

        timeout: seconds for all of a call, where its caller doesn't say; 0 for as long as it will.
        idempotent: making a call twice does no harm. By default what the .proto says: `idempotency_level`.
        attempts: tries of an idempotent call at most, the first included. What no server has looked at is tried
            elsewhere anyway, whatever it is.
        retry_on: statuses that are worth another try of an idempotent call.
        backoff: seconds before the second try; doubled for each further one, up to a second, and spread.
        hedge: seconds after which an idempotent call that isn't answered is made at another instance as well, and the
            first answer counts; `auto`: when it takes longer than such calls do; `off`: never.
        budget: retries and hedges, as a share of the calls of the last while; a service in trouble gets so much more
            than its usual load and no more.
        wait_for_ready: where no instance can be reached, wait for one until the deadline.

    When it goes wrong:

        eject_after: calls in a row that an instance failed to answer before it is left alone for a while; 0 for never.
        eject_time: seconds that it is left alone at first, doubled each time up to 30; it comes back when it answers.
        breaker: share of the calls of a method failing for want of an answer at which further ones fail at once,
            while single ones try whether it is well again; 0 for never.
        max_in_flight: unary calls of this client at a time, to the service, the contract or the method that this is
            said for; further ones wait. 0 for any number.
        max_waiting: how many may wait; further ones fail as `ResourceExhausted`.
    """

    selector: str | SelectorMaker | None = None
    key: Key | None = None
    match: Mapping[str, str] | None = None
    split: Mapping[str, Mapping[str, float]] | None = None
    prefer: str | None = None
    subset: int | None = None
    connections: int | None = None
    timeout: float | None = None
    idempotent: bool | None = None
    attempts: int | None = None
    retry_on: tuple[str, ...] | None = None
    backoff: float | None = None
    hedge: Hedge | None = None
    budget: float | None = None
    wait_for_ready: bool | None = None
    eject_after: int | None = None
    eject_time: float | None = None
    breaker: float | None = None
    max_in_flight: int | None = None
    max_waiting: int | None = None

    def __post_init__(self) -> None:
        """Check the figures.

        Raises:
            ConfigurationError: one is out of range.
        """
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not (least <= value <= most):
                raise ConfigurationError(f"{name} = {value!r}: it is {least:g} to {most:g}")
        if isinstance(self.hedge, str) and self.hedge not in ("auto", "off"):
            raise ConfigurationError(f"hedge = {self.hedge!r}: it is a time, auto or off")
        if isinstance(self.hedge, (int, float)) and not 0 < self.hedge < float("inf"):
            raise ConfigurationError(f"hedge = {self.hedge!r}: it is more than 0 seconds")
        for status in self.retry_on or ():
            if status not in Code.__members__:
                raise ConfigurationError(f"retry_on: {status!r} is no status; there are {', '.join(Code.__members__)}")
        _check_split(self.split)

    def check_narrow(self, whose: str) -> None:
        """Check that nothing is said for a method, or for one stub, that all calls to a service share.

        Raises:
            ConfigurationError: it is.
        """
        for name in _SHARED:
            if getattr(self, name) is not None:
                raise ConfigurationError(
                    f"{whose}: {name} can't differ between calls to one service; say it for the service"
                )

    def over(self, general: CallPolicy) -> CallPolicy:
        """Return this policy, with what it leaves open as `general` has it."""
        said = {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}
        return replace(general, **said)


def _check_split(split: Mapping[str, Mapping[str, float]] | None) -> None:
    if split is None:
        return
    if len(split) != 1:
        raise ConfigurationError("split: it is shares by one label's values, such as {version: {1.2.0: 95, 1.3.0: 5}}")
    for label, shares in split.items():
        if not shares or min(shares.values()) < 0 or not 0 < sum(shares.values()) < float("inf"):
            raise ConfigurationError(f"split: the shares of {label} are not negative, and one of them is more than 0")


_RANGES: Final[dict[str, tuple[float, float]]] = {
    "subset": (0, 1_000_000),
    "connections": (1, 64),
    "timeout": (0, 86_400),
    "attempts": (1, 10),
    "backoff": (0, 60),
    "budget": (0, 1),
    "eject_after": (0, 1_000_000),
    "eject_time": (0.01, 3600),
    "breaker": (0, 1),
    "max_in_flight": (0, 10_000_000),
    "max_waiting": (0, 10_000_000),
}

DEFAULT: Final = CallPolicy(
    subset=100,
    connections=1,
    attempts=3,
    retry_on=("UNAVAILABLE",),
    backoff=0.025,
    hedge="auto",
    budget=0.2,
    wait_for_ready=False,
    eject_after=5,
    eject_time=1.0,
    breaker=0.8,
    max_in_flight=0,
    max_waiting=1000,
)


#: What is one for all calls to a service: its instances, and the connections to them.
_SHARED: Final = ("subset", "connections", "eject_after", "eject_time")


class Policies:
    """Policies by what they are for.

    Args:
        named: by `""` for all calls, a service's name, a contract's full name, or `contract/Method`.
    """

    def __init__(self, named: Mapping[str, CallPolicy] | None = None) -> None:
        self._named = dict(named or {})
        for name, policy in self._named.items():
            if not isinstance(policy, CallPolicy):
                raise ConfigurationError(f"policies: {name!r} has a {type(policy).__name__}, not a CallPolicy")
            if "/" in name:
                policy.check_narrow(name)

    def of(self, service: str, path: str = "", own: CallPolicy | None = None) -> CallPolicy:
        """Return the policy of a method, complete.

        Args:
            service: the name that is called: a service's, or the contract's.
            path: `/contract/Method`; "" for the service as a whole.
            own: the stub's.
        """
        policy = DEFAULT
        for name in self._names(service, path):
            policy = self._named[name].over(policy)
        return policy if own is None else own.over(policy)

    def sayer(self, field: str, service: str, path: str) -> str:
        """Return which name's policy decides on a field of a method's; "" for that of all calls, or for the default."""
        names = [name for name in self._names(service, path) if getattr(self._named[name], field) is not None]
        return names[-1] if names else ""

    def _names(self, service: str, path: str) -> list[str]:
        """Return whose policies hold for a method, the most general first."""
        method = path.removeprefix("/")
        names = dict.fromkeys(("", service, method.partition("/")[0], method))
        return [name for name in names if name in self._named]

    def over(self, general: Policies) -> Policies:
        """Return these policies, with what they leave open as `general` has it."""
        named = dict(general._named)
        for name, policy in self._named.items():
            named[name] = policy.over(named[name]) if name in named else policy
        return Policies(named)
