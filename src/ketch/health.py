"""Health: whether a service does its work, as its process alone can't tell.

A consumer that lost its broker, a check that fails, a start or a stop under way: each makes the service NOT_SERVING,
with the reason in the log, and `grpc.health.v1` tells it to whoever asks or watches.
"""

from __future__ import annotations

import asyncio
import logging
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from .errors import NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

log = logging.getLogger("ketch.health")

#: The name that stands for the service as a whole.
OVERALL: Final = ""
#: Seconds between two looks, between two runs of the checks, and that a check may take.
_LOOK: Final = 0.5
_PERIOD: Final = 5.0
_PATIENCE: Final = 2.0


class Status(IntEnum):
    """`grpc.health.v1.HealthCheckResponse.ServingStatus`."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


class Health:
    """What a service tells of itself, by name: "" for all of it, its contracts, `topic:NAME` for what it subscribes to.

    The service as a whole is well when it is started and not stopping, and its consumers, checks and whatever was
    reported under "" are well. A contract is well while the service runs, unless something was reported under its name.
    """

    def __init__(self) -> None:
        self._checks: list[Callable[[], Awaitable[object]]] = []
        self._reported: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._probes: Mapping[str, Callable[[], str]] = {}
        self._contracts: frozenset[str] = frozenset()
        self._state = "it was not started"
        self._ended = False
        self._said: dict[str, str] = {}
        self._change: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    # what users do

    def report(self, name: str, trouble: str) -> None:
        """Say why something isn't well, "" when it is again.

        Args:
            name: a contract's name, or "" for the service as a whole.
            trouble: what is wrong, for the log.
        """
        if trouble:
            self._reported[name] = trouble
        else:
            self._reported.pop(name, None)
        self.look()

    def check(self, function: Callable[[], Awaitable[object]]) -> None:
        """Run a function every 5 seconds; the service isn't well while it raises, or takes longer than 2 seconds."""
        self._checks.append(function)

    def names(self) -> list[str]:
        """Return all names that there is something to say of."""
        return [OVERALL, *sorted({*self._contracts, *self._probes, *self._reported} - {OVERALL})]

    def trouble(self, name: str = OVERALL) -> str:
        """Return why something isn't well, "" if it is.

        Raises:
            NotFound: nothing has that name.
        """
        if name == OVERALL:
            probed = (probe() for probe in self._probes.values())
            return (
                self._state
                or self._reported.get(OVERALL, "")
                or next(filter(None, self._failed.values()), "")
                or (next(filter(None, probed), ""))
            )
        if name not in self._contracts and name not in self._probes and name not in self._reported:
            raise NotFound(f"{name[:200]} isn't served here")
        probe = self._probes.get(name)
        return self._state or self._reported.get(name, "") or (probe() if probe is not None else "")

    def status(self, name: str = OVERALL) -> Status:
        """Return the status of a name; errors as `trouble`'s."""
        return Status.NOT_SERVING if self.trouble(name) else Status.SERVING

    async def watch(self, name: str = OVERALL) -> AsyncGenerator[Status, None]:
        """Yield the status of a name now and whenever it changes, until the service stops."""
        last = None
        while True:
            try:
                status = self.status(name)
            except NotFound:
                status = Status.SERVICE_UNKNOWN
            if status != last:
                last = status
                yield status
            if self._ended:
                return
            if self._change is None:
                self._change = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._change)

    # what the lifecycle does

    async def start(self, contracts: frozenset[str], probes: Mapping[str, Callable[[], str]]) -> None:
        """Begin to look; from now on the service is starting.

        Args:
            contracts: what the service serves.
            probes: by name, what returns why a consumer hears nothing just now, "" if it does.
        """
        self._contracts, self._probes = contracts, probes
        self._ended, self._state = False, "it is starting"
        self._said = {}
        await self._run_checks()
        self._task = asyncio.create_task(self._go_on(), name="ketch health")

    def serve(self) -> None:
        """The service has started."""
        self._state = ""
        self.look()

    def leave(self) -> None:
        """The service is stopping."""
        self._state = "it is stopping"
        self.look()

    def end(self) -> None:
        """End what watches: it must not hold up the service's end."""
        self._ended = True
        self._notify()

    async def close(self) -> None:
        """Look no more. Closing twice is no error."""
        self.end()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def look(self) -> None:
        """Log what has changed, and tell who watches."""
        now = {name: self.trouble(name) for name in self.names()}
        before, self._said = self._said, now
        if now == before:
            return
        trouble = now[OVERALL]
        if trouble and not self._state and trouble != before.get(OVERALL):
            log.warning("not serving: %s", trouble)
        elif not trouble and before.get(OVERALL):
            log.info("serving")
        self._notify()

    def _notify(self) -> None:
        change, self._change = self._change, None
        if change is not None and not change.done():
            change.set_result(None)

    async def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + _PERIOD
        while True:
            await asyncio.sleep(_LOOK)
            if loop.time() >= due:
                await self._run_checks()
                due = loop.time() + _PERIOD
            self.look()

    async def _run_checks(self) -> None:
        for check in self._checks:
            name = getattr(check, "__qualname__", repr(check))
            try:
                async with asyncio.timeout(_PATIENCE):
                    await check()
            except Exception as error:
                why = f"takes longer than {_PATIENCE:g} s" if isinstance(error, TimeoutError) else "fails"
                if not self._failed.get(name):
                    log.warning("the check %s %s", name, why, exc_info=error)
                self._failed[name] = f"the check {name} {why}"
            else:
                self._failed[name] = ""
