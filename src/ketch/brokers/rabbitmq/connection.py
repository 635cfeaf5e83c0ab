"""Connection: one socket to the server, from the greeting to the farewell (AMQP 0-9-1, section 2.2.4)."""

from __future__ import annotations

import asyncio
import platform
from typing import TYPE_CHECKING, Final, Self, TypeVar

from pamqp import commands
from pamqp.base import Frame
from pamqp.exceptions import AMQPCommandInvalid, AMQPError

from . import wire
from .channel import Channel, error_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pamqp.common import FieldTable

    from .config import Config

_C = TypeVar("_C", bound=Channel)
_F = TypeVar("_F", bound=Frame)

#: Bytes of a frame at most, what RabbitMQ suggests itself. Larger ones would hold up the other channels.
_FRAME_MAX: Final = 131_072

#: Channels at most, unless the server allows fewer.
_CHANNELS: Final = 2047

#: What the server is told that we understand: to be told of its alarms, of consumers that it ends, of a login refused.
_CAPABILITIES: Final = {
    "publisher_confirms": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "basic.nack": True,
    "exchange_exchange_bindings": True,
    "authentication_failure_close": True,
}


class Connection(asyncio.Protocol):
    """A connection and its channels.

    Attributes:
        lost: done when it has ended, with the reason; never an exception.
        blocked: why the server takes nothing that is published just now, "" where it does.
        frame_max: bytes of a frame, as agreed on.
    """

    def __init__(self, config: Config, name: str) -> None:
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self.blocked = ""
        self.frame_max = _FRAME_MAX
        self._config = config
        self._name = name
        self._transport: asyncio.Transport | None = None
        self._reader = wire.Reader(self)
        self._channels: dict[int, Channel] = {}
        self._free = list(range(_CHANNELS, 0, -1))
        self._heard: asyncio.Queue[Frame | Exception] = asyncio.Queue(4)
        self._out: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()
        self._beat: asyncio.TimerHandle | None = None
        self._silent = 0
        self._wrote = False

    @classmethod
    async def open(cls, config: Config, address: tuple[str, int], name: str, timeout: float) -> Self:
        """Connect and log in within some seconds.

        Raises:
            TimeoutError, OSError: it can't be reached.
            AMQPError: it refuses us; the class says why.
        """
        loop = asyncio.get_running_loop()
        connection = cls(config, name)
        try:
            async with asyncio.timeout(timeout):
                await loop.create_connection(lambda: connection, *address, ssl=config.tls)
                await connection._log_in()
        except BaseException:
            connection.abort(ConnectionError("it wasn't opened"))
            raise
        return connection

    async def _log_in(self) -> None:
        config = self._config
        self.send(wire.GREETING)
        start = await self._expect(commands.Connection.Start)
        if "PLAIN" not in start.mechanisms.split():
            raise AMQPCommandInvalid(f"the server wants to be logged in by {start.mechanisms}, ketch knows PLAIN only")
        response = f"\0{config.username}\0{config.password}"
        about: FieldTable = {
            "product": "ketch",
            "platform": f"Python {platform.python_version()}",
            "connection_name": self._name,
            "capabilities": dict(_CAPABILITIES),
        }
        self._say(commands.Connection.StartOk(about, "PLAIN", response))
        tune = await self._expect(commands.Connection.Tune)
        self.frame_max = self._reader.frame_max = min(tune.frame_max or _FRAME_MAX, _FRAME_MAX)
        self._free = list(range(min(tune.channel_max or _CHANNELS, _CHANNELS), 0, -1))
        heartbeat = min(tune.heartbeat or config.heartbeat, config.heartbeat)
        self._say(
            commands.Connection.TuneOk(len(self._free), self.frame_max, heartbeat),
            commands.Connection.Open(config.vhost),
        )
        await self._expect(commands.Connection.OpenOk)
        self._watch(heartbeat / 2)

    async def _expect(self, kind: type[_F]) -> _F:
        method = await self._heard.get()
        if isinstance(method, Exception):
            raise method
        if not isinstance(method, kind):
            raise AMQPCommandInvalid(f"the server said {method.name} out of turn")
        return method

    # --- writing

    def send(self, data: bytes) -> None:
        """Write bytes at the end of this turn of the loop, together with all others."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(data)

    def send_all(self, parts: list[bytes]) -> None:
        """Write as `send` does."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out += parts

    def _say(self, *methods: Frame) -> None:
        self.send(wire.marshal(0, methods))

    def _flush(self) -> None:
        out, self._out = self._out, []
        self._wrote = True
        if self._transport is not None and not self.lost.done():
            self._transport.write(b"".join(out))

    @property
    def full(self) -> bool:
        """Whether what is written waits for the server; whoever writes much waits for `room`."""
        return not self._writable.is_set()

    async def room(self) -> None:
        """Wait until the server has read."""
        await self._writable.wait()

    def pause_writing(self) -> None:
        """Hear that the socket is full."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Hear that the socket has room."""
        self._writable.set()

    # --- reading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self._transport = transport  # type: ignore[assignment]  # a TCP connection's has all that is needed
        if self.lost.done():
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        self._silent = 0
        try:
            self._reader.feed(data)
        except AMQPError as error:
            self.abort(error)

    def on_method(self, channel: int, method: Frame) -> None:
        """Give a method to its channel."""
        if channel:
            owner = self._channels.get(channel)
            if owner is not None:
                owner.on_method(method)
        elif isinstance(method, commands.Connection.Close):
            self._say(commands.Connection.CloseOk())
            self._flush()
            self.abort(error_of(method.reply_code, method.reply_text))
        elif isinstance(method, commands.Connection.CloseOk):
            self.abort(ConnectionError("the connection was closed"))
        elif isinstance(method, commands.Connection.Blocked):
            self.blocked = method.reason or "no reason given"
        elif isinstance(method, commands.Connection.Unblocked):
            self.blocked = ""
        elif not self._heard.full():
            self._heard.put_nowait(method)

    def on_confirm(self, channel: int, tag: int, multiple: bool, taken: bool) -> None:  # noqa: FBT001 - as in Receiver
        """Give a confirm to its channel."""
        owner = self._channels.get(channel)
        if owner is not None:
            owner.on_confirm(tag, multiple=multiple, taken=taken)

    def on_arrivals(self, channel: int, arrivals: list[wire.Arrival]) -> None:
        """Give deliveries to their channel."""
        owner = self._channels.get(channel)
        if owner is not None:
            owner.on_arrivals(arrivals)

    # --- channels

    def channel(self, make: Callable[[Connection, int], _C]) -> _C:
        """Return a new channel, not yet opened at the server.

        Raises:
            AMQPError: there are as many as the server allows.
        """
        if self.lost.done():
            raise self.lost.result()
        if not self._free:
            raise AMQPError(f"the connection has {len(self._channels)} channels, and the server allows no more")
        number = self._free.pop()
        channel = self._channels[number] = make(self, number)
        return channel

    def release(self, number: int) -> None:
        """Let a channel's number be used again."""
        if self._channels.pop(number, None) is not None:
            self._free.append(number)

    # --- signs of life

    def _watch(self, half: float) -> None:
        """Say every half interval that we live, and look whether the server does (section 4.2.7)."""
        if self.lost.done():
            return
        self._silent += 1
        if self._silent > 4:  # noqa: PLR2004 - two intervals in halves
            self.abort(ConnectionError(f"the server has been silent for {2 * half * 2:g} s"))
            return
        if not self._wrote:
            self.send(wire.HEARTBEAT)
        self._wrote = False
        self._beat = asyncio.get_running_loop().call_later(half, self._watch, half)

    # --- the end

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that the socket is gone."""
        self._gone.set()
        self.abort(exc or ConnectionError("the server closed the connection"))

    def abort(self, error: Exception) -> None:
        """End it at once."""
        if self.lost.done():
            return
        self.lost.set_result(error)
        if not self._heard.full():
            self._heard.put_nowait(error)
        if self._beat is not None:
            self._beat.cancel()
        for channel in list(self._channels.values()):
            channel.end(error)
        self._writable.set()
        if self._transport is not None and not self._gone.is_set():
            self._transport.close()
            if self._transport.get_write_buffer_size():
                # A server that doesn't read any more would keep it open.
                asyncio.get_running_loop().call_later(1.0, self._transport.abort)

    async def close(self, timeout: float) -> None:
        """Say goodbye; what was written before has then reached the server."""
        if self.lost.done():
            return
        self._say(commands.Connection.Close(200, "done", 0, 0))
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self.lost)
                await self._gone.wait()
        except TimeoutError:
            self.abort(ConnectionError("the server doesn't answer"))
