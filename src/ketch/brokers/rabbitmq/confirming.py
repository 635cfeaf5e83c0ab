"""Confirming: the channel that is published on, and what the server hasn't confirmed yet."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from . import wire
from .channel import Channel

if TYPE_CHECKING:
    from .connection import Connection

#: Methods that are remembered as bytes: one for each topic.
_REMEMBERED: Final = 4096


class Outgoing(NamedTuple):
    """A message as it goes out."""

    exchange: str
    key: str
    properties: bytes
    body: bytes


class ConfirmChannel(Channel):
    """A channel in confirm mode: each message's future is done when the server took it."""

    def __init__(self, line: Connection, number: int) -> None:
        super().__init__(line, number)
        self._connection = line
        self._tag = 0
        self._pending: dict[int, asyncio.Future[bool]] = {}
        self._methods: dict[tuple[str, str], bytes] = {}

    @property
    def idle(self) -> bool:
        """Whether everything is confirmed."""
        return not self._pending

    @property
    def tag(self) -> int:
        """How many messages it has sent."""
        return self._tag

    def publish(self, message: Outgoing) -> asyncio.Future[bool]:
        """Send a message; the future says whether the server took it, or raises why the channel ended."""
        exchange, key, properties, body = message
        method = self._methods.get((exchange, key))
        if method is None:
            method = wire.publish_method(self.number, exchange, key)
            if len(self._methods) < _REMEMBERED:
                self._methods[exchange, key] = method
        if self.lost.done():
            raise self.lost.result()
        frames = wire.content(self.number, properties, body, self._connection.frame_max)
        frames[0] = method + frames[0]
        self._connection.send_all(frames)
        self._tag += 1
        future = self._pending[self._tag] = asyncio.get_running_loop().create_future()
        return future

    def on_confirm(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """Take a confirm, of one message or of all up to it."""
        if not multiple:
            future = self._pending.pop(tag, None)
            if future is not None and not future.done():
                future.set_result(taken)
            return
        # In the order of their tags, for that is how they went in.
        confirmed = []
        for sent in self._pending:
            if sent > tag:
                break
            confirmed.append(sent)
        for sent in confirmed:
            future = self._pending.pop(sent)
            if not future.done():
                future.set_result(taken)

    def give_up(self, tag: int) -> None:
        """Let those up to a tag, that wait too long, fail with TimeoutError."""
        for sent in [sent for sent in self._pending if sent <= tag]:
            future = self._pending.pop(sent)
            if not future.done():
                future.set_exception(TimeoutError())

    def end(self, error: Exception, *, free: bool = True) -> None:
        """Hear that there is no more channel: nothing more will be confirmed."""
        pending, self._pending = self._pending, {}
        super().end(error, free=free)
        for future in pending.values():
            if not future.done():
                future.set_exception(error)
