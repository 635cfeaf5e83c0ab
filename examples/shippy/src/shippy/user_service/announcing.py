"""How a new user is announced: at most once by itself, or from the outbox, which loses nothing."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

from ketch import KetchError, Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ketch.broker import Broker

    from ..user.v1.user_pb2 import User
    from .store import Store

log = logging.getLogger("shippy.user_service")

Announce: TypeAlias = Callable[["User"], Awaitable[None]]

#: Seconds that Create waits for a broker that is away.
_TIMEOUT = 1.0
#: Seconds between two looks into the outbox, for what other instances left there or the broker refused.
_LOOK = 0.5
#: Seconds after which an event counts as given up by who claimed it; well above _TIMEOUT.
_CLAIM = 5.0


def raw_json(broker: Broker) -> Announce:
    """Announce through the broker itself, as the tutorial's first variant: JSON, and the user's id as a header."""

    async def announce(user: User) -> None:
        fields = {"id": user.id, "name": user.name, "company": user.company, "email": user.email}
        headers = {"id": user.id, "content-type": "application/json"}
        await broker.publish(Message("user.created", headers, json.dumps(fields).encode()))

    return announce


class AtMostOnce:
    """Announces once, straight after the commit. A failure is logged and counted, and is nobody else's trouble."""

    def __init__(self, announce: Announce) -> None:
        self.failures = 0
        self._announce = announce

    async def __call__(self, user: User) -> None:
        """Announce a user who was stored."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._announce(user)
        except (KetchError, TimeoutError) as error:
            self.failures += 1
            reason = str(error) or f"the broker took more than {_TIMEOUT:g} s"
            log.warning("user.created of %s is lost, the %d. so far: %s", user.id, self.failures, reason)


class Outbox:
    """Publishes what was stored with the users, in order, until the broker has taken it: at least once.

    The header `id` is the same each time, so a subscriber that must not act twice can tell.
    """

    def __init__(self, store: Store, announce: Announce) -> None:
        self._store = store
        self._announce = announce
        self._there_is_more = asyncio.Event()

    async def __call__(self, user: User) -> None:  # noqa: ARG002 - the event is stored already, this only says so
        """Say that there is an event to publish."""
        self._there_is_more.set()

    @asynccontextmanager
    async def relaying(self) -> AsyncIterator[None]:
        """Publish from the outbox within a block."""
        task = asyncio.create_task(self._relay(), name="shippy outbox")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _relay(self) -> None:
        while True:
            self._there_is_more.clear()
            try:
                while await self._publish_one():
                    pass
            except (KetchError, TimeoutError) as error:
                log.warning("the outbox waits: %s", str(error) or type(error).__name__)
            except Exception:
                log.exception("the outbox failed and tries again")
            try:
                async with asyncio.timeout(_LOOK):
                    await self._there_is_more.wait()
            except TimeoutError:
                continue

    async def _publish_one(self) -> bool:
        waiting = await self._store.claim(_CLAIM)
        if waiting is None:
            return False
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._announce(waiting.user)
        except BaseException:
            await self._store.release(waiting.position)
            raise
        await self._store.published(waiting.position)
        return True
