"""Link: one connection to NATS, kept for ever, with messages written and read by us (see wire.py and decision 3)."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from nats import errors

from ..errors import TransportError
from .driver import Driver, explain, unexpected
from .wire import Sink, round_trip

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.subscription import Subscription

    from .config import Config

log = logging.getLogger("ketch.nats")

#: Bytes that wait to be written above which nobody should write more.
_HIGH_WATER: Final = 4 * 1024 * 1024


class Link:
    """A connection: subscribe, write commands, hear when it is lost.

    What is written while it is lost is dropped: whoever writes hears of the loss, and decides what to do again.

    Args:
        config: where, and who we are.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._client: Driver | None = None
        self._sinks: dict[int, Sink] = {}
        self._losses: set[Callable[[], None]] = set()
        self._trouble = ""
        self._refusals: deque[str] = deque(maxlen=64)
        self._closing = False

    @property
    def location(self) -> str:
        """The servers, without credentials."""
        return self._config.location

    @property
    def connected(self) -> bool:
        """Whether there is a connection just now."""
        return self._client is not None and self._client.is_connected

    @property
    def max_payload(self) -> int:
        """Bytes of headers and body that the server takes in one message."""
        return 0 if self._client is None else self._client.max_payload

    @property
    def full(self) -> bool:
        """Whether so much waits to be written that nobody should write more."""
        return self._client is not None and self._client._pending_data_size > _HIGH_WATER  # noqa: SLF001

    def on_loss(self, hear: Callable[[], None]) -> None:
        """Have a function called whenever the connection is lost."""
        self._losses.add(hear)

    def forget(self, hear: Callable[[], None]) -> None:
        """Call it no more."""
        self._losses.discard(hear)

    async def open(self, name: str) -> None:
        """Connect. Opening twice is no error.

        Raises:
            TransportError: no server can be reached, or it refuses us.
        """
        if self._client is not None:
            return
        self._closing, self._trouble = False, ""
        client = Driver(self._config, self._sinks)
        try:
            await client.join(
                name,
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnect,
                reconnected_cb=self._on_reconnect,
            )
        except (TimeoutError, OSError, errors.Error) as error:
            self._closing = True
            await client.leave()
            raise self._refused(error) from error
        self._client = client

    def _refused(self, error: Exception) -> TransportError:
        return TransportError(f"{self.location}: {explain(error, self._trouble)[1]}")

    async def listen(self, subject: str, sink: Sink, *, queue: str = "") -> Subscription:
        """Have what comes on a subject handed to a sink; at return the server knows.

        Raises:
            TransportError: the server doesn't answer, or doesn't let us.
        """
        client = self._opened()
        self._refusals.clear()
        try:
            driver = await client.subscribe(subject, queue=queue, cb=unexpected)
            self._sinks[driver._id] = sink  # noqa: SLF001 - the id that messages come with
            await round_trip(client, self._config.timeout)
        except (errors.Error, TimeoutError, OSError, ValueError) as error:
            raise TransportError(f"{self.location}: can't listen on {subject}: {error}") from error
        for refusal in self._refusals:
            if f'"{subject.lower()}"' in refusal.lower():
                await self.leave(driver)
                raise TransportError(f"{self.location}: {refusal}; the user needs the permission to subscribe")
        return driver

    async def leave(self, *drivers: Subscription) -> None:
        """Listen no more; at return all that was on its way has come, unless the server is away."""
        try:
            for driver in drivers:
                await driver.unsubscribe()
            if self.connected:
                await round_trip(self._opened(), self._config.timeout)
        except (errors.Error, TimeoutError, OSError) as error:
            log.info("nats: left %s without its answer: %s", self.location, str(error) or "no answer")
        for driver in drivers:
            self._sinks.pop(driver._id, None)  # noqa: SLF001 - as in listen

    def write(self, command: bytes) -> None:
        """Write a command within this turn of the event loop; drop it where there is no connection."""
        client = self._client
        if client is None or not client.is_connected:
            return
        # As the driver's `_send_command` and `_flush_pending` do, without two coroutines for each command.
        client._pending.append(command)  # noqa: SLF001
        client._pending_data_size += len(command)  # noqa: SLF001
        flusher = client._flush_queue  # noqa: SLF001
        if flusher is not None and flusher.empty():
            flusher.put_nowait(asyncio.get_running_loop().create_future())

    async def flush(self) -> None:
        """Wait until the server has all that was written."""
        try:
            if self.connected:
                await round_trip(self._opened(), self._config.timeout)
        except (errors.Error, TimeoutError, OSError) as error:
            log.warning("nats: %s may not have everything: %s", self.location, str(error) or "no answer")

    async def close(self) -> None:
        """Write what is left and disconnect. Closing twice is no error."""
        client = self._client
        if client is None:
            return
        self._closing = True
        await self.flush()
        self._client = None
        self._sinks.clear()
        await client.leave()

    def _opened(self) -> Driver:
        if self._client is None:
            raise TransportError("nats: the connection isn't open")
        return self._client

    async def _on_error(self, error: Exception) -> None:
        if self._client is None:
            if "authorization" not in self._trouble.lower():  # what comes after it is its consequence
                self._trouble = str(error) or type(error).__name__
        elif "permissions violation" in str(error).lower():
            self._refusals.append(str(error))
            log.error("nats: %s: %s", self.location, error)
        else:
            log.warning("nats: %s: %s", self.location, str(error) or type(error).__name__)

    async def _on_disconnect(self) -> None:
        if not self._closing and self._client is not None:
            log.warning("nats: lost %s, trying on", self.location)
            for hear in list(self._losses):
                hear()

    async def _on_reconnect(self) -> None:
        log.warning("nats: %s is back", self.location)


def publication(subject: str, body: bytes, *, reply: str = "", headers: bytes = b"") -> bytes:
    """Return the command that publishes a message.

    Args:
        subject: where to; checked by the caller.
        body: its payload.
        reply: where an answer goes, "" for nowhere.
        headers: lines, each with its end, after `NATS/1.0`; b"" for none.
    """
    to = f"{subject} {reply}" if reply else subject
    if not headers:
        return b"PUB %b %d\r\n%b\r\n" % (to.encode(), len(body), body)
    head = b"NATS/1.0\r\n%b\r\n" % headers
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (to.encode(), len(head), len(head) + len(body), head, body)
