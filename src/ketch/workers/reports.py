"""Reports: what a worker tells its supervisor, and what the supervisor tells of all workers."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from ..stats import Stats

#: Longest report or status, in bytes: thousands of methods and topics.
MAX_REPORT: Final = 4 * 1024 * 1024


class Report(Struct, tag="report"):
    """How one worker is.

    Attributes:
        service, version: what it runs.
        address: where this worker is reached.
        ready: whether it has started and isn't stopping.
        trouble: why it doesn't serve, "" where it does.
        memory: bytes of its own in memory.
        cpu: seconds of processor time so far.
        at: the worker's monotonic clock.
        stats: what it has served and handled.
    """

    service: str = ""
    version: str = ""
    address: str = ""
    ready: bool = False
    trouble: str = "it is starting"
    memory: int = 0
    cpu: float = 0.0
    at: float = 0.0
    stats: Stats = msgspec.field(default_factory=Stats)


class Wish(Struct, tag="wish"):
    """A worker's wish for the socket that all workers serve on an address."""

    address: str


class Grant(Struct):
    """The answer to a wish: the address that it has become, with which the socket comes; or why there is none."""

    address: str = ""
    error: str = ""


class Line(Struct):
    """One worker in a status.

    Attributes:
        number: its place, from 1.
        pid: 0 where no process runs.
        state: `serving`, `not serving`, `starting`, `hanging`, `stopping` or `waiting` (to be started again).
        trouble: why it doesn't serve.
        uptime: seconds since its process was started.
        restarts: how often its place was filled again after a process had died.
        address: where this worker is reached.
        memory, cpu: bytes, seconds.
        calls, errors, events: since this process was started.
        call_rate, event_rate: per second, of late.
    """

    number: int
    pid: int = 0
    state: str = "waiting"
    trouble: str = ""
    uptime: float = 0.0
    restarts: int = 0
    address: str = ""
    memory: int = 0
    cpu: float = 0.0
    calls: int = 0
    errors: int = 0
    events: int = 0
    call_rate: float = 0.0
    event_rate: float = 0.0


class Status(Struct):
    """How all workers of one supervisor are.

    Attributes:
        service, version: what they run, "" before any has said so.
        pid: the supervisor's.
        addresses: what they serve together.
        uptime: seconds since the supervisor was started.
        reloads: how often all workers were replaced.
        failed: why the last reload failed, "" where it didn't.
        workers: those that are there to stay, by number; then those that are stopping.
        stats: the sums, over all processes that there have been.
    """

    service: str = ""
    version: str = ""
    pid: int = 0
    addresses: list[str] = msgspec.field(default_factory=list)
    uptime: float = 0.0
    reloads: int = 0
    failed: str = ""
    workers: list[Line] = msgspec.field(default_factory=list)
    stats: Stats = msgspec.field(default_factory=Stats)

    @property
    def serving(self) -> int:
        """How many workers do their work."""
        return sum(line.state == "serving" for line in self.workers)


_said: msgspec.json.Decoder[Report | Wish] = msgspec.json.Decoder(Report | Wish)
_encode = msgspec.json.Encoder().encode


def encode(value: Report | Wish | Grant | Status) -> bytes:
    """Return a value as one line of JSON, with its end."""
    return _encode(value) + b"\n"


def decode(line: bytes) -> Report | Wish:
    """Read what a worker says.

    Raises:
        msgspec.MsgspecError: it is nothing of that.
    """
    return _said.decode(line)
