"""RetryPolicy: how often, how soon and for which errors a handler is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .errors import CodecError, ConfigurationError, Reject, Retry


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What happens when a handler raises.

    It is tried again after `backoff` seconds, then after `factor` times as many, at most `longest`, each
    shortened by up to `jitter` of itself at random, so that handlers that failed together don't come back together.
    After `attempts` tries the event goes to the dead letters, where the broker keeps any.

    Attributes:
        attempts: tries in all, the first included.
        backoff, factor, longest: see above; seconds, a number, seconds.
        jitter: 0 to 1.
        only: errors that are worth another try; any other goes to the dead letters at once.
        never: errors among these that are not.
        in_place: wait with the event in hand, which keeps the order and works at every broker. False gives it back to
            the broker until it is due: another instance may take it then, and events after it overtake it. That needs a
            broker that can delay what it redelivers and counts.
        deliveries: how often a broker may hand an event out that nobody ever settled, before it counts as one that
            kills its handler's process and goes to the dead letters unhandled. Only where the broker counts.
    """

    attempts: int = 5
    backoff: float = 0.2
    factor: float = 2.0
    longest: float = 30.0
    jitter: float = 0.5
    only: tuple[type[Exception], ...] = (Exception,)
    never: tuple[type[Exception], ...] = ()
    in_place: bool = True
    deliveries: int = 20

    def __post_init__(self) -> None:
        """Check the figures."""
        if self.attempts < 1 or self.deliveries < 1:
            raise ConfigurationError("a retry policy has at least one attempt and one delivery")
        if min(self.backoff, self.longest) < 0 or self.factor < 1 or not 0 <= self.jitter <= 1:
            raise ConfigurationError("a retry policy's times are not negative, factor is 1 or more, jitter 0 to 1")

    def wait(self, error: BaseException, failures: int) -> float | None:
        """Return the seconds until the next try, None when there is to be none.

        Args:
            error: what the handler raised.
            failures: how often it failed by now.
        """
        if failures >= self.attempts or isinstance(error, (CodecError, Reject)):
            return None
        if isinstance(error, Retry):
            return self.delay(failures) if error.after is None else error.after
        if isinstance(error, self.never) or not isinstance(error, self.only):
            return None
        return self.delay(failures)

    def delay(self, failures: int) -> float:
        """Return the backoff after so many failures, in seconds."""
        # The exponent is bounded: a float overflows past 1023 doublings.
        seconds = min(self.longest, self.backoff * self.factor ** min(failures - 1, 64))
        return seconds * (1 - self.jitter * random.random())  # noqa: S311 - it spreads load, it guards nothing


#: One try: what handlers get at brokers that promise at most once.
ONCE = RetryPolicy(attempts=1)
