"""Channel: one of the conversations that a connection carries (AMQP 0-9-1, section 2.2.5)."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from pamqp import commands
from pamqp.exceptions import CLASS_MAPPING, AMQPError

from . import wire

if TYPE_CHECKING:
    from pamqp.base import Frame

_CLOSE: Final = commands.Channel.Close(200, "done", 0, 0)


class Line(Protocol):
    """What a channel needs of its connection."""

    def send(self, data: bytes) -> None:
        """Write bytes within this turn of the loop."""

    def release(self, number: int) -> None:
        """Let the number be used again."""


class Channel:
    """A channel. Several requests may be under way: the server answers them in turn.

    Attributes:
        number: its number on the connection.
        lost: done when the channel has ended, with the reason; never an exception.
    """

    def __init__(self, line: Line, number: int) -> None:
        self.number = number
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._line = line
        self._replies: deque[asyncio.Future[Frame]] = deque()

    def on_arrivals(self, arrivals: list[wire.Arrival]) -> None:
        """Take deliveries; a channel that consumes overrides it."""

    def on_confirm(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """Take a publisher confirm; a channel that publishes overrides it."""

    def on_cancel(self, consumer_tag: str) -> None:
        """Hear that the server ended a consumer, mostly because its queue is gone."""

    def send(self, data: bytes) -> None:
        """Write bytes.

        Raises:
            AMQPError, OSError: the channel has ended.
        """
        if self.lost.done():
            raise self.lost.result()
        self._line.send(data)

    async def call(self, *methods: Frame, timeout: float) -> list[Frame]:
        """Send methods in one go and return the answers.

        Raises:
            TimeoutError: they didn't come in time. The channel is closed then, as it is when the caller is cancelled:
                what the server will make of them is open.
            AMQPError, OSError: the channel, or the connection, ended instead; the class says why.
        """
        self.send(wire.marshal(self.number, methods))
        replies = [asyncio.get_running_loop().create_future() for _ in methods]
        self._replies.extend(replies)
        try:
            async with asyncio.timeout(timeout):
                answers: list[Frame] = await asyncio.gather(*replies)
        except (TimeoutError, asyncio.CancelledError) as error:
            self._abandon(error)
            raise
        return answers

    def _abandon(self, error: BaseException) -> None:
        """Close it without waiting for the server, which may still say something on it."""
        if not self.lost.done():
            self._line.send(wire.marshal(self.number, [_CLOSE]))
            self.end(ConnectionError(f"the channel was given up: {type(error).__name__}"), free=False)

    def on_method(self, method: Frame) -> None:
        """Take a method."""
        if isinstance(method, commands.Channel.Close):
            self._line.send(wire.marshal(self.number, [commands.Channel.CloseOk()]))
            self.end(error_of(method.reply_code, method.reply_text))
        elif isinstance(method, commands.Channel.CloseOk):
            self.end(ConnectionError("the channel was closed"))
            self._line.release(self.number)
        elif isinstance(method, commands.Basic.Cancel):
            self.on_cancel(method.consumer_tag or "")
        elif isinstance(method, commands.Channel.Flow):
            self._line.send(wire.marshal(self.number, [commands.Channel.FlowOk(method.active)]))
        elif self._replies:
            reply = self._replies.popleft()
            if not reply.done():
                reply.set_result(method)

    def end(self, error: Exception, *, free: bool = True) -> None:
        """Hear that there is no more channel; its number is used again where it is `free`."""
        if self.lost.done():
            return
        self.lost.set_result(error)
        while self._replies:
            reply = self._replies.popleft()
            if not reply.done():
                reply.set_exception(error)
        if free:
            self._line.release(self.number)

    async def close(self, timeout: float) -> None:
        """Close it; deliveries that weren't acknowledged go back to their queues."""
        if self.lost.done():
            return
        try:
            self.send(wire.marshal(self.number, [_CLOSE]))
            async with asyncio.timeout(timeout):
                await asyncio.shield(self.lost)
        except (TimeoutError, OSError, AMQPError) as error:
            self.end(error, free=False)  # the server may still say something on it


def error_of(code: int | None, text: str) -> AMQPError:
    """Return the exception for a reply code (section 1.2 of the reference), with the server's own words."""
    kind: type[AMQPError] = CLASS_MAPPING.get(code or 0, AMQPError)
    return kind(text or f"code {code}")
