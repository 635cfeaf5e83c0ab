"""Link: a connection to NATS that comes back for ever; what is said over it, and what is heard."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING

from nats import errors

from ...errors import NotRunning, RegistryError
from ...nats.driver import Driver, explain
from ...nats.wire import round_trip
from .commands import check_length, command
from .ear import Ear

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...nats.config import Access
    from ...nats.wire import Sink
    from .commands import Question

log = logging.getLogger("ketch.registry")

#: The first version of nats-server with a time to live for each message.
_TTL_SINCE = (2, 11)

#: Refusals that are remembered of one connection.
_MOST_REFUSALS = 100

#: Unheard messages of one ear.
_BACKLOG = 200_000


class Link:
    """One connection, made again whenever it is lost, whatever the reason.

    Args:
        access: the servers.
        alive: seconds of silence after which a connection is looked at.

    Attributes:
        back: called when the connection has come back.
        why: what is wrong with the connection, or was when it was lost; "" for nothing.
    """

    def __init__(self, access: Access, alive: float) -> None:
        self.access = access
        self._alive = alive
        self.back: Callable[[], object] = int  # which does nothing
        self._client: Driver | None = None
        self._connected = asyncio.Event()
        self._closing = False
        self.why = ""
        self._refusals: list[str] = []
        self._sinks: dict[int, Sink] = {}
        self._lasting: dict[str, tuple[Sink, int]] = {}
        self._ears: set[Ear] = set()

    async def open(self) -> None:
        """Connect.

        Raises:
            RegistryError: no server is there, or it refuses us.
        """
        self._client = await self._connect()

    async def close(self) -> None:
        """Disconnect, when what was sent has been handled. Closing twice is no error."""
        self._closing = True
        client, self._client = self._client, None
        if client is None:
            return
        self._lose("the registry was closed")
        if self._connected.is_set():
            try:
                await round_trip(client, self.access.timeout)
            except (errors.Error, TimeoutError, OSError) as error:
                log.warning("nats: closed before %s had everything: %s", self.access.location, error)
        await client.leave()

    @property
    def limits_messages(self) -> bool:
        """Whether the server can give each message its own time to live (ADR-43)."""
        version = self._client.connected_server_version if self._client is not None else None
        return version is not None and (version.major, version.minor) >= _TTL_SINCE

    # --- saying

    async def ready(self) -> Driver:
        """Return the driver's client, connected.

        Raises:
            RegistryError: the connection doesn't come back within the timeout.
        """
        if self._client is None:
            raise NotRunning("the NATS registry isn't open")
        if not self._connected.is_set():
            try:
                async with asyncio.timeout(self.access.timeout):
                    await self._connected.wait()
            except TimeoutError:
                raise RegistryError(f"{self.access.location}: {self.why or 'no answer'}; is it running?") from None
        return self._client

    async def tell(self, messages: Sequence[Question], reply: str = "") -> None:
        """Publish, as `tell_each` does, without an answer but to `reply`."""
        await self.tell_each([(*message, reply) for message in messages])

    async def tell_each(self, messages: Sequence[tuple[str, bytes, bytes, str]]) -> None:
        """Publish, each with its own subject for answers.

        Raises:
            RegistryError: there is no connection within the timeout.
        """
        client = await self.ready()
        data = b"".join([command(client.max_payload, *message) for message in messages])
        try:
            await client._send_command(data)  # noqa: SLF001 - one write for all, see decision 3
            await client._flush_pending()  # noqa: SLF001
        except (errors.Error, OSError) as error:
            raise RegistryError(f"{self.access.location}: {error}") from error

    async def offer(self, messages: Sequence[tuple[str, bytes, bytes, str]]) -> None:
        """Publish answers, if there is a connection: who has asked a lost one asks again."""
        if self._connected.is_set():
            try:
                await self.tell_each(messages)
            except RegistryError as error:
                log.warning("nats: %d answers are lost: %s", len(messages), error)

    # --- hearing

    async def answer(self, subject: str, sink: Sink) -> None:
        """Have what comes on a subject handed to a sink, over all connections to come.

        Raises:
            RegistryError: there is no connection within the timeout.
        """
        client = await self.ready()
        self._lasting[subject] = sink, await self._subscribe(client, subject, sink)

    async def leave(self, subject: str) -> None:
        """Hear a subject of `answer` no more."""
        lasting = self._lasting.pop(subject, None)
        if lasting is not None:
            await self._drop(lasting[1])

    async def hear(self, *subjects: str) -> Ear:
        """Return what comes on some subjects, until `Ear.close` or until the connection is lost.

        Raises:
            RegistryError: there is no connection within the timeout.
        """
        client = await self.ready()
        self._ears.add(ear := Ear(self._deafen, _BACKLOG))
        try:
            for subject in subjects:
                ear.sids.append(await self._subscribe(client, subject, ear.take))
        except BaseException:
            await ear.close()
            raise
        return ear

    def inbox(self) -> str:
        """Return a subject of ours that nobody has used."""
        return f"_INBOX.{secrets.token_hex(11)}"

    async def settle(self) -> None:
        """Return when the server has handled all that was sent.

        Raises:
            RegistryError: it doesn't say so within the timeout, or has refused one of our subscriptions.
        """
        client = await self.ready()
        try:
            await round_trip(client, self.access.timeout)
        except (errors.Error, TimeoutError, OSError) as error:
            raise RegistryError(f"{self.access.location}: {str(error) or 'no answer'}") from error

    def refusal(self, subject: str) -> str:
        """Return what the server said when it refused a subject, "" if it didn't."""
        return next((refusal for refusal in self._refusals if f'"{subject.lower()}' in refusal.lower()), "")

    async def _subscribe(self, client: Driver, subject: str, sink: Sink) -> int:
        check_length(subject)
        try:
            driver = await client.subscribe(subject)
        except (errors.Error, OSError, ValueError) as error:
            raise RegistryError(f"{self.access.location}: can't subscribe to {subject}: {error}") from error
        sid: int = driver._id  # noqa: SLF001 - the id that messages come with
        self._sinks[sid] = sink
        return sid

    async def _deafen(self, ear: Ear) -> None:
        self._ears.discard(ear)
        for sid in ear.sids:
            await self._drop(sid)

    async def _drop(self, sid: int) -> None:
        self._sinks.pop(sid, None)
        client = self._client
        driver = None if client is None else client._subs.get(sid)  # noqa: SLF001
        if driver is not None:
            try:
                await driver.unsubscribe()
            except (errors.Error, OSError) as error:
                log.debug("nats: unsubscribed without the server: %s", error)

    # --- the connection

    async def _connect(self) -> Driver:
        client = Driver(self.access, self._sinks)
        try:
            await client.join(
                "ketch registry",
                alive=self._alive,
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnect,
                reconnected_cb=self._on_reconnect,
            )
        except (TimeoutError, OSError, errors.Error) as error:
            await client.leave()
            raise RegistryError(f"{self.access.location}: {explain(error, self.why)[1]}") from error
        self._connected.set()
        self.why = ""
        return client

    def _lose(self, why: str) -> None:
        self.why = why
        self._refusals.clear()
        for ear in self._ears:
            ear.fail(why)

    async def _on_error(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if "permissions violation" in text.lower():
            if len(self._refusals) < _MOST_REFUSALS:
                self._refusals.append(text)
            log.debug("%s: %s", self.access.location, text)
        elif "authorization" not in self.why.lower():  # what comes after it is its consequence
            self.why = text

    async def _on_disconnect(self) -> None:
        if self._connected.is_set() and not self._closing:
            self._connected.clear()
            self._lose("the connection is lost")

    async def _on_reconnect(self) -> None:
        self._connected.set()
        self.why = ""
        self.back()
