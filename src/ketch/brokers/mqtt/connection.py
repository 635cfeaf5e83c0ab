"""Connection: packets over one socket, read in batches and written once a turn of the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ...errors import BrokerError, BrokerUnavailable
from .decoder import Decoder
from .packets import CONNACK, DISCONNECT, PINGREQ, PINGRESP, PUBACK, Answer, Connect, Publish, disconnect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .config import Config

#: Largest packet that we take, and write: a body of `MAX_BODY`, its topic and its headers.
MAX_BODY = 16 * 1024 * 1024
MAX_PACKET = MAX_BODY + 1024 * 1024

#: Packets that are written in one turn before publishers that wait for nothing let others go on.
_TURN = 256


class Connection(asyncio.Protocol):
    """One connection to a server; `lost` tells why it ended."""

    def __init__(
        self, on_publishes: Callable[[list[Publish]], None], on_puback: Callable[[int, int], None], keepalive: int
    ) -> None:
        """Describe it.

        Args:
            on_publishes: takes events, as many as came at once.
            on_puback: takes the confirmation of an event: id and reason code.
            keepalive: seconds of silence after which the server is asked whether it is there.
        """
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = loop.create_future()
        self.reason = 0
        self.writable = asyncio.Event()
        self.writable.set()
        self._on_publishes = on_publishes
        self._on_puback = on_puback
        self._keepalive = keepalive
        self._decoder = Decoder(MAX_PACKET)
        self._transport: Any = None
        self._out: list[bytes] = []
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._connected: asyncio.Future[Answer] = loop.create_future()
        self._pongs: list[asyncio.Future[None]] = []
        self._heard = loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._last_id = 0

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        self._heard = asyncio.get_running_loop().time()
        try:
            packets = self._decoder.feed(data)
            events: list[Publish] = []
            for packet in packets:
                if isinstance(packet, Publish):
                    events.append(packet)
                    continue
                if events:
                    # What came before an answer has to be there when whoever waits for the answer goes on.
                    self._on_publishes(events)
                    events = []
                self._answered(packet)
            if events:
                self._on_publishes(events)
        except BrokerError as error:
            self.abort(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._end(str(exc) if exc else "the server closed the connection")

    def pause_writing(self) -> None:
        """Remember that the server doesn't keep up."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """Let writers go on."""
        self.writable.set()

    # --- ours

    async def connect(self, hello: Connect) -> Answer:
        """Introduce ourselves; return the server's welcome.

        Raises:
            BrokerError: it refuses us.
            BrokerUnavailable: the connection ended.
        """
        self.write(hello.encode())
        answer = await self._connected
        if answer.reasons[0]:
            if answer.reasons[0] in (0x86, 0x87):
                raise BrokerError(f"the server refuses our credentials: {answer.why}")
            raise BrokerError(f"the server refuses us: {answer.why}")
        self._tick()
        return answer

    def write(self, data: bytes) -> None:
        """Send a packet, with whatever else is sent in this turn."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(data)

    @property
    def crowded(self) -> bool:
        """Whether so much was sent in this turn that others should have theirs."""
        return len(self._out) >= _TURN

    def next_id(self, used: Sequence[int] | dict[int, Any] = ()) -> int:
        """Return an id that no unanswered packet has."""
        while True:
            self._last_id = self._last_id % 0xFFFF + 1
            if self._last_id not in used and self._last_id not in self._answers:
                return self._last_id

    async def ask(self, id: int, packet: bytes, timeout: float) -> Answer:  # noqa: A002 - MQTT's word
        """Send a packet and return its answer.

        Raises:
            BrokerUnavailable: none came in time.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self.lost.done():
            raise BrokerUnavailable(self.lost.result())
        self._answers[id] = answer
        self.write(packet)
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise BrokerUnavailable(f"no answer within {timeout:g} s") from None
        finally:
            self._answers.pop(id, None)

    async def round_trip(self, timeout: float) -> None:
        """Return when the server has read all that was sent, and we what it sent before it answered.

        Raises:
            BrokerUnavailable: no answer came in time.
        """
        pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.lost.done():
            raise BrokerUnavailable(self.lost.result())
        self._pongs.append(pong)
        self.write(PINGREQ)
        try:
            async with asyncio.timeout(timeout):
                await pong
        except TimeoutError:
            raise BrokerUnavailable(f"no answer within {timeout:g} s") from None

    def pause_reading(self) -> None:
        """Let the server wait."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take what the server sends again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    async def close(self, timeout: float, *, forget: bool) -> None:
        """Send what was written, take leave and end the connection."""
        if not self.lost.done() and self._transport is not None:
            self.write(disconnect(forget=forget))
            self._flush()
            self._transport.close()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self.lost)
        except TimeoutError:
            self.abort("the server didn't take what was left")

    def abort(self, why: str) -> None:
        """End the connection at once."""
        self._end(why)
        if self._transport is not None:
            self._transport.abort()

    def _answered(self, packet: Answer) -> None:
        kind = packet.kind
        if kind == PUBACK:
            self._on_puback(packet.id, packet.reasons[0])
        elif kind == PINGRESP:
            pongs, self._pongs = self._pongs[:1], self._pongs[1:]
            for pong in pongs:
                _resolve(pong, None)
        elif kind == CONNACK:
            _resolve(self._connected, packet)
        elif kind == DISCONNECT:
            self.reason = packet.reasons[0]
            self._end(f"the server closed the connection: {packet.why}")
        elif (waiting := self._answers.get(packet.id)) is not None:
            _resolve(waiting, packet)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    def _tick(self) -> None:
        """Ask whether the server is there when it was silent; give it up when it stays silent."""
        loop = asyncio.get_running_loop()
        silent = loop.time() - self._heard
        if silent >= 1.5 * self._keepalive:
            self.abort(f"the server was silent for {silent:.0f} s")
            return
        if silent >= 0.45 * self._keepalive:
            self._pongs.append(loop.create_future())
            self.write(PINGREQ)
        self._timer = loop.call_later(self._keepalive / 2, self._tick)

    def _end(self, why: str) -> None:
        if self.lost.done():
            return
        self.lost.set_result(why)
        if self._timer is not None:
            self._timer.cancel()
        self.writable.set()
        waits: list[asyncio.Future[Any]] = [self._connected, *self._answers.values(), *self._pongs]
        for waiting in waits:
            if not waiting.done():
                waiting.set_exception(BrokerUnavailable(why))
                waiting.exception()  # nobody may wait for it
        if self._transport is not None:
            self._transport.close()


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


async def dial(config: Config, connection: Connection) -> None:
    """Open the socket to the first server that takes it.

    Raises:
        OSError: none does.
    """
    errors: list[str] = []
    for host, port in config.servers:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection, host, port, ssl=config.tls, server_hostname=host if config.tls else None
            )
        except OSError as error:
            errors.append(f"{host}:{port}: {error}" if len(config.servers) > 1 else str(error))
        else:
            return
    raise OSError("; ".join(errors))
