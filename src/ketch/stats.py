"""Stats: what one process serves and handles, and how often since it started.

Counted where it happens, by the one thread that the event loop runs in: without a lock, and for a tenth of a
microsecond or two per call. Numbers only grow, but for `running`; they start at 0 with each start of the service.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(slots=True)
class MethodStats:
    """One method of a contract that is served.

    Attributes:
        method: `/pkg.Service/Method`.
        calls: that have ended, however they did.
        running: calls in hand.
        seconds: that all calls which have ended took together: decoding, middleware, handler, encoding.
        failures: of `calls`, those that failed, by gRPC's name of their status: `NOT_FOUND`, …
        last_failure: the status of the one that failed last, "" for none.
    """

    method: str
    calls: int = 0
    running: int = 0
    seconds: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)
    last_failure: str = ""

    @property
    def errors(self) -> int:
        """Of `calls`, those that failed."""
        return sum(self.failures.values())

    def fail(self, status: str) -> None:
        """Count a call that failed."""
        self.failures[status] = self.failures.get(status, 0) + 1
        self.last_failure = status

    def add(self, other: MethodStats) -> None:
        """Count what another process has done."""
        self.calls += other.calls
        self.running += other.running
        self.seconds += other.seconds
        for status, count in other.failures.items():
            self.failures[status] = self.failures.get(status, 0) + count
        self.last_failure = other.last_failure or self.last_failure


@dataclass(slots=True)
class TopicStats:
    """One handler of a topic's events.

    Attributes:
        topic: its name, or the pattern of names that is subscribed to.
        group: who shares the events, None where each instance gets all of them.
        handler: `module.function`.
        handled: events that the handler has finished with.
        failed: tries that failed.
        retried: failed tries that another one followed, or is to follow.
        expired: of those handled, what was past its lifetime and no handler saw.
        dead: events given up: with the dead letters, or dropped where there are none.
        running: handlers that run just now.
        seconds: spent on handling, where several run at a time each for itself; waits for a retry in place included.
    """

    topic: str
    group: str | None
    handler: str
    handled: int = 0
    failed: int = 0
    retried: int = 0
    expired: int = 0
    dead: int = 0
    running: int = 0
    seconds: float = 0.0

    def add(self, other: TopicStats) -> None:
        """Count what another process has done."""
        self.handled += other.handled
        self.failed += other.failed
        self.retried += other.retried
        self.expired += other.expired
        self.dead += other.dead
        self.running += other.running
        self.seconds += other.seconds


@dataclass(slots=True)
class Stats:
    """All that one process of a service serves and handles.

    The objects in it are the live ones: read them, or take a `snapshot`, but don't write.
    """

    methods: list[MethodStats] = field(default_factory=list)
    topics: list[TopicStats] = field(default_factory=list)

    def method(self, path: str) -> MethodStats:
        """Return the counters of a method that is served, all 0."""
        made = MethodStats(path)
        self.methods.append(made)
        return made

    def snapshot(self) -> Stats:
        """Return a copy that stays as it is."""
        return total([self])


def total(parts: Iterable[Stats]) -> Stats:
    """Return the sums over several processes of one service, in the order in which names come up."""
    methods: dict[str, MethodStats] = {}
    topics: dict[tuple[str, str | None, str], TopicStats] = {}
    for part in parts:
        for method in part.methods:
            methods.setdefault(method.method, MethodStats(method.method)).add(method)
        for topic in part.topics:
            key = (topic.topic, topic.group, topic.handler)
            topics.setdefault(key, TopicStats(*key)).add(topic)
    return Stats(list(methods.values()), list(topics.values()))
