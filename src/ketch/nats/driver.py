"""Driver: nats-py's client as all our connections have it, so that it behaves alike for broker, registry and transport.

It connects, authenticates, keeps alive and reconnects, for ever; messages are read and written by us (see wire.py and
decision 3).
"""

from __future__ import annotations

import asyncio
import logging
from random import uniform
from typing import TYPE_CHECKING, Any, Final

from nats import errors
from nats.aio.client import Client

from .wire import Reader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.aio.msg import Msg

    from .config import Access
    from .wire import Sink

log = logging.getLogger("ketch.nats")

#: Seconds between two tries to reach a server again, spread.
RECONNECT_WAIT: Final = 0.5

#: Seconds of silence after which the connection is looked at, where nobody says otherwise.
_ALIVE: Final = 20.0

#: Seconds after which a task that was cancelled is cancelled again.
_INSIST: Final = 0.1

#: What the server says when it hasn't heard of us for long: nothing that it sent before can be relied on.
_STALE: Final = "stale connection"


class Driver(Client):
    """One connection, that comes back whatever the server says.

    Args:
        access: the servers, and who we are.
        sinks: where messages go, by the id of their subscription.
    """

    def __init__(self, access: Access, sinks: Mapping[int, Sink]) -> None:
        super().__init__()
        self._access = access
        self._ps = Reader(self, sinks)

    async def join(self, name: str, *, alive: float = _ALIVE, **callbacks: Any) -> None:
        """Connect, within `connect_timeout`.

        Args:
            name: of the connection, for the server's tools.
            alive: seconds of silence after which the connection is looked at.
            callbacks: `disconnected_cb`, `reconnected_cb` and `error_cb`, as the driver has them.

        Raises:
            TimeoutError, OSError, nats.errors.Error: see `explain`.
        """
        access = self._access
        connecting = self.connect(
            servers=list(access.servers),
            name=name,
            connect_timeout=max(1, round(access.connect_timeout)),
            # Both are declared as int, and used as seconds. Spreading needs no secret.
            reconnect_time_wait=uniform(RECONNECT_WAIT / 2, RECONNECT_WAIT),  # type: ignore[arg-type]  # noqa: S311
            max_reconnect_attempts=-1,
            ping_interval=alive,  # type: ignore[arg-type]
            **callbacks,
            **access.login,
        )
        trying = asyncio.create_task(connecting, name=f"ketch connects to {access.location}")
        try:
            await asyncio.wait({trying}, timeout=access.connect_timeout)
        finally:
            await _end(trying)
        if trying.cancelled():
            raise TimeoutError
        trying.result()

    async def leave(self) -> None:
        """Disconnect; what wasn't sent to a connection that is lost is dropped."""
        if not self.is_connected:
            # The driver would write it to the connection that was lost, and stop half-closed.
            self._pending.clear()
            self._pending_data_size = 0
        try:
            await self.close()
        except (OSError, errors.Error) as error:
            log.debug("nats: %s went away while the connection was closed: %s", self._access.location, error)
        if self._reconnection_task is not None:
            await _end(self._reconnection_task)

    async def _process_err(self, err_msg: str) -> None:
        """Hear the server's last words, or a warning.

        nats-py closes the connection for good after most of them: an expired login, too many connections, a client that
        was too slow. The server itself closes it where it is meant to end, and then another one is made.
        """
        if _STALE in err_msg.lower():
            await super()._process_err(err_msg)
        else:
            await self._error_cb(errors.Error(f"nats: {err_msg.strip().strip(chr(39))}"))


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task until it has ended.

    Once isn't enough: before Python 3.12 `asyncio.wait_for`, in which the driver connects, drops a cancellation that
    comes together with its result, and the driver would try on for ever.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_INSIST)


def explain(error: BaseException, said: str) -> tuple[bool, str]:
    """Return whether the server refuses who we are, and why a connection wasn't made.

    Args:
        error: what `join` raised.
        said: what `error_cb` heard meanwhile: the driver tries on after a refusal, so that the time runs out.
    """
    if "authorization" in f"{error} {said}".lower():
        return True, "the server refuses our credentials"
    return False, f"{str(error) or said or 'no answer'}; is it running?"


async def unexpected(message: Msg) -> None:
    """Say that a message took the driver's own path, which none should: each subscription has a sink."""
    log.error("nats: a message on %s came past its subscription and is lost", message.subject)
