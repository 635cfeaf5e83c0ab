"""Roster: the candidates of one service, and which of them are left alone because they fail (outlier ejection)."""

from __future__ import annotations

import asyncio
import logging
from math import inf
from random import uniform
from time import monotonic
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from ..cancellation import cancelled
from ..codec import PROTOBUF
from ..errors import Cancelled, DeadlineExceeded, StatusError, Unavailable, Unreachable
from ..selector import Candidate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..policy import CallPolicy
    from ..registry import Instance
    from ..transport import Channel
    from .choice import Choice

    #: Takes a subset of a service's instances.
    Narrow = Callable[[Sequence[Instance]], Sequence[Instance]]

log = logging.getLogger("ketch.client")

#: What an instance that was left alone is asked before it is used again: any answer shows that it is alive.
_PROBE: Final = "/grpc.health.v1.Health/Check"
_PROBE_TIMEOUT: Final = 1.0

#: How many times an instance's usual time have to be waited for in vain until that counts as a failure of it.
_PATIENCE: Final = 2.0

#: Longest time that an instance is left alone without being asked, and time after which its past is forgotten; seconds.
_LONGEST_REST: Final = 30.0
_FORGET: Final = 60.0


class Roster:
    """What is known of a service's instances, and what became of the calls to them.

    An instance that failed to answer several calls in a row is left alone for a while, and then until it answers a
    probe; one that could not be reached at all is so at once. At most half of them are left alone for the former, and
    where none is left, all are used.

    Args:
        service: what is called.
        connect: makes the channel to an address; the number tells several of them apart.
        policy: the service's; its `connections`, `eject_after` and `eject_time` count.
        narrow: takes a subset of the instances.
    """

    def __init__(
        self,
        service: str,
        connect: Callable[[str, int], Channel],
        policy: CallPolicy,
        narrow: Narrow,
    ) -> None:
        self.candidates: tuple[Candidate, ...] = ()
        self.known: tuple[Instance, ...] = ()
        self._service = service
        self._connect = connect
        self._narrow = narrow
        self._connections = policy.connections or 1
        self._eject_after = policy.eject_after or 0
        self._eject_time = policy.eject_time or 1.0
        self._by_id: dict[tuple[str, str, int], Candidate] = {}
        self._choices: WeakSet[Choice] = WeakSet()  # plans hold them, and may be given up
        self._probes: dict[Candidate, asyncio.Task[None]] = {}
        self._back: dict[Candidate, float] = {}

    def join(self, choice: Choice) -> None:
        """Keep a choice current."""
        self._choices.add(choice)
        choice.arrange(self.candidates)

    def learn(self, instances: Sequence[Instance]) -> None:
        """Take in what the registry says. What is known of an instance that stays is kept."""
        self.known = tuple(instances)
        before, self._by_id = self._by_id, {}
        for instance in self._narrow(instances):
            for number in range(self._connections):
                key = instance.id, instance.address, number
                candidate = before.pop(key, None)
                if candidate is None:
                    candidate = Candidate(instance, self._connect(instance.address, number))
                candidate.instance = instance
                self._by_id[key] = candidate
        for gone in before.values():
            self._back.pop(gone, None)
            if probe := self._probes.pop(gone, None):
                probe.cancel()
        self.candidates = tuple(self._by_id.values())
        self._arrange()

    def widen(self) -> None:
        """Use all instances from now on: a key leads every client to the same one only if they know the same ones."""
        if self._narrow is not _all:
            self._narrow = _all
            self.learn(self.known)

    def failed(self, candidate: Candidate, error: StatusError | None, waited: float = inf) -> None:
        """Take in that an instance did not answer a call.

        Args:
            candidate: the instance.
            error: why; None where another one was quicker.
            waited: for so many seconds. A caller who waits no longer than answers usually take proves nothing.
        """
        if isinstance(error, DeadlineExceeded) and waited < _PATIENCE * candidate.latency:
            return
        candidate.failures += 1
        if candidate.out or not self._eject_after or len(self.candidates) == 1:
            return
        if candidate not in self.candidates:
            return  # it has left
        if not isinstance(error, Unreachable):
            out = sum(one.out for one in self.candidates)
            if candidate.failures < self._eject_after or 2 * (out + 1) > len(self.candidates):
                return
        self._eject(candidate, error)

    async def close(self) -> None:
        """Probe no more."""
        probes, self._probes = list(self._probes.values()), {}
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)

    def _eject(self, candidate: Candidate, error: StatusError | None) -> None:
        if monotonic() - self._back.pop(candidate, 0.0) > _FORGET:
            candidate.rests = 0
        candidate.out = True
        candidate.rests += 1
        self._arrange()
        instance = candidate.instance
        log.warning(
            "%s: instance %s at %s is left alone for a while: %s",
            self._service,
            instance.id,
            instance.address,
            error or "others answer instead of it",
        )
        self._probes[candidate] = asyncio.create_task(
            self._bring_back(candidate), name=f"ketch probe of {instance.address}"
        )

    async def _bring_back(self, candidate: Candidate) -> None:
        pause = min(_LONGEST_REST, self._eject_time * 2 ** min(candidate.rests - 1, 16))
        while True:
            await asyncio.sleep(uniform(0.75 * pause, pause))  # noqa: S311 - spreading load is no secret
            if await _answers(candidate.channel):
                break
            pause = min(_LONGEST_REST, 2 * pause)
        candidate.out = False
        candidate.failures = 0
        self._back[candidate] = monotonic()
        self._probes.pop(candidate, None)
        self._arrange()
        log.info("%s: instance %s answers again", self._service, candidate.instance.id)

    def _arrange(self) -> None:
        for choice in self._choices:
            choice.arrange(self.candidates)


def _all(instances: Sequence[Instance]) -> Sequence[Instance]:
    return instances


async def _answers(channel: Channel) -> bool:
    try:
        await channel.unary(_PROBE, b"", content_type=PROTOBUF, timeout=_PROBE_TIMEOUT)
    except (Unavailable, DeadlineExceeded, Cancelled):
        return False
    except StatusError:
        return True  # it doesn't tell its health, but it answers
    except (Exception, asyncio.CancelledError):
        if cancelled():
            raise
        # A transport with a bug; without this the instance would be left alone for good.
        log.exception("a probe failed")
        return False
    return True
