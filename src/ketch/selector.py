"""Selector: picks the instance that a call goes to.

A selector is a function from the candidates there are, at least one, and the call's key, to one of them. The key is ""
unless the call's policy says what it is; only selectors that keep a key's calls together read it. A selector may keep
state of its own, so a client is given a function that makes one: `Client.from_env(selector=round_robin)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from .registry import Instance
    from .transport import Channel


class Candidate:
    """An instance that a call may go to, with what this client has seen of it.

    Attributes:
        instance: as the registry has it.
        channel: leads there.
        in_flight: unary calls of this client that it hasn't answered yet.
        latency: how long it takes to answer, in seconds: a moving average of this client's unary calls.
        failures: calls in a row that it failed to answer.
        out: it isn't used just now, for it has failed too often; not among the candidates unless all are so.
    """

    __slots__ = ("channel", "failures", "in_flight", "instance", "latency", "out", "rests")

    def __init__(self, instance: Instance, channel: Channel) -> None:
        self.instance = instance
        self.channel = channel
        self.in_flight = 0
        self.latency = 0.0
        self.failures = 0
        self.out = False
        self.rests = 0  #: how often in a row it was taken out

    def __repr__(self) -> str:
        return f"<Candidate {self.instance.id} at {self.instance.address}{' out' if self.out else ''}>"


Selector: TypeAlias = Callable[[Sequence[Candidate], str], Candidate]
SelectorMaker: TypeAlias = Callable[[], Selector]
