"""Channels: what one connection is subscribed to, and the mailboxes behind it."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any

from hiredis import ReplyError

from ...broker import Delivery
from ...errors import BrokerError
from ...mailbox import Mailbox
from ...pattern import is_pattern, matches
from .envelope import unwrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...resp.connection import Connection
    from ...resp.link import Link

log = logging.getLogger("ketch.broker")

_SPECIAL = re.compile(r"[\[\]?*\\]")


def glob(pattern: str) -> str:
    """Return the narrowest of Redis's patterns that lets a pattern of topics through.

    Its `*` crosses dots, ours doesn't, so what comes has to be looked at again.
    """
    words = pattern.split(".")
    last = len(words) - 1
    parts = [
        "*" if word == "*" or (word == ">" and at == last) else _SPECIAL.sub(r"\\\g<0>", word)
        for at, word in enumerate(words)
    ]
    return ".".join(parts)


class Deliveries:
    """Payloads of one topic as deliveries, parsed when they are taken out of the mailbox."""

    __slots__ = ("_found",)

    def __init__(self, found: list[tuple[bytes, bytes]]) -> None:
        self._found = found

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, item: object) -> bool:
        return False  # each iteration makes its own

    def __iter__(self) -> Iterator[Delivery]:
        for channel, payload in self._found:
            yield Delivery(unwrap(channel.decode("utf-8", "replace"), payload))


class ChannelSubscription(Mailbox):
    """A mailbox that a channel, or a pattern of channels, fills."""

    def __init__(self, topic: str, channels: Channels) -> None:
        super().__init__(topic, self._unsubscribe)
        self._channels = channels
        self.leaving = False
        self.pattern = is_pattern(topic)
        self.name = (glob(topic) if self.pattern else topic).encode()

    def wants(self, channel: bytes) -> bool:
        """Tell whether a channel that came by the pattern is meant."""
        return not self.pattern or matches(self.topic, channel.decode("utf-8", "replace"))

    async def _unsubscribe(self) -> None:
        await self._channels.leave(self)


class Channels:
    """The channels and patterns of one connection; made again on each new one."""

    def __init__(self) -> None:
        self._mailboxes: dict[tuple[bool, bytes], list[ChannelSubscription]] = {}
        self._stalled: set[asyncio.Task[None]] = set()
        self.link: Link | None = None

    async def greet(self, connection: Connection) -> None:
        """Subscribe a new connection to everything."""
        keys = list(self._mailboxes)
        answers = await asyncio.gather(
            *(connection.request(*_command(*key)) for key in keys),
            return_exceptions=True,
        )
        for key, answer in zip(keys, answers, strict=True):
            if isinstance(answer, ReplyError):
                for mailbox in self._mailboxes.get(key, ()):
                    mailbox.fail(BrokerError(f"redis: {mailbox.topic}: {answer}"))
            elif isinstance(answer, BaseException):
                raise answer

    async def join(self, mailbox: ChannelSubscription, call: Callable[..., Any]) -> None:
        """Subscribe; at return the server has it."""
        key = (mailbox.pattern, mailbox.name)
        # In the table before the server knows of it: a connection that is made meanwhile takes it along.
        self._mailboxes.setdefault(key, []).append(mailbox)
        try:
            await call(*_command(*key))
        except BaseException:
            self._forget(mailbox)
            raise

    async def leave(self, mailbox: ChannelSubscription) -> None:
        """Unsubscribe; what came before the server's answer is in the mailbox."""
        key = (mailbox.pattern, mailbox.name)
        connection = self.link.connection if self.link is not None else None
        mailbox.leaving = True
        last = all(other.leaving for other in self._mailboxes.get(key, ()))
        try:
            if connection is not None:
                await connection.request(*(_command(*key, leave=True) if last else ("PING",)))
        except (BrokerError, ReplyError) as error:
            # The server is away, so it sends nothing either.
            log.info("redis: left %s without the server's answer: %s", mailbox.topic, error)
        finally:
            self._forget(mailbox)

    def _forget(self, mailbox: ChannelSubscription) -> None:
        key = (mailbox.pattern, mailbox.name)
        mailboxes = self._mailboxes.get(key, [])
        if mailbox in mailboxes:
            mailboxes.remove(mailbox)
        if not mailboxes:
            self._mailboxes.pop(key, None)

    def take(self, pushes: list[list[Any]]) -> None:
        """Put what came into the mailboxes, those of one channel together."""
        found: dict[tuple[bool, bytes], list[tuple[bytes, bytes]]] = {}
        for push in pushes:
            # message: channel, payload; pmessage: pattern, channel, payload
            key = (push[0] == b"pmessage", push[1])
            found.setdefault(key, []).append((push[-2], push[-1]))
        for key, messages in found.items():
            for mailbox in self._mailboxes.get(key, ()):
                self._offer(mailbox, [m for m in messages if mailbox.wants(m[0])] if mailbox.pattern else messages)

    def _offer(self, mailbox: ChannelSubscription, messages: list[tuple[bytes, bytes]]) -> None:
        size = sum(len(payload) for _, payload in messages)
        deliveries = Deliveries(messages)
        if not mailbox.offer(deliveries, size):
            # Reading stops until there is room, a tenth of a second at most, so this is at most a read's worth.
            if self.link is not None and self.link.connection is not None:
                self.link.connection.pause()
            waiting = asyncio.create_task(self._offer_patiently(mailbox, deliveries, size))
            self._stalled.add(waiting)
            waiting.add_done_callback(self._stalled.discard)

    async def _offer_patiently(self, mailbox: ChannelSubscription, deliveries: Deliveries, size: int) -> None:
        await mailbox.offer_patiently(deliveries, size)
        if len(self._stalled) == 1 and self.link is not None and self.link.connection is not None:
            self.link.connection.resume()

    async def close(self) -> None:
        """Close every subscription."""
        every = [mailbox for mailboxes in self._mailboxes.values() for mailbox in mailboxes]
        await asyncio.gather(*(mailbox.close() for mailbox in every))
        for waiting in self._stalled:
            waiting.cancel()
        if self._stalled:
            await asyncio.wait(self._stalled)


def _command(pattern: bool, name: bytes, *, leave: bool = False) -> tuple[str | bytes, bytes]:  # noqa: FBT001 - a key's part
    return ("P" if pattern else "") + ("UNSUBSCRIBE" if leave else "SUBSCRIBE"), name
