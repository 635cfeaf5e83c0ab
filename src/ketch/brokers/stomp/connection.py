"""Connection: frames over one socket, read in batches and written once a turn of the event loop."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ...errors import BrokerError, BrokerUnavailable
from . import frames
from .frames import HEARTBEAT, Decoder, Frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config import Config

log = logging.getLogger("ketch.broker")

#: Largest body that we take, and send.
MAX_BODY = 16 * 1024 * 1024


class Connection(asyncio.Protocol):
    """One connection to a server; `lost` tells why it ended."""

    def __init__(
        self,
        on_messages: Callable[[list[Frame]], None],
        on_answer: Callable[[str, str], None],
        heartbeat: float,
    ) -> None:
        """Describe it.

        Args:
            on_messages: takes MESSAGE frames, as many as came at once.
            on_answer: takes a receipt that `ask` didn't ask for: its number, and why it was refused or "".
            heartbeat: seconds between signs of life.
        """
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = loop.create_future()
        self.writable = asyncio.Event()
        self.writable.set()
        self._on_messages = on_messages
        self._on_answer = on_answer
        self._heartbeat = heartbeat
        self._decoder = Decoder(MAX_BODY)
        self._transport: Any = None
        self._out: list[bytes] = []
        self._answers: dict[str, asyncio.Future[None]] = {}
        self._connected: asyncio.Future[Frame] = loop.create_future()
        self._theirs = self._ours = 0.0
        self._heard = self._said = loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._asked = 0

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        self._heard = asyncio.get_running_loop().time()
        try:
            messages: list[Frame] = []
            for frame in self._decoder.feed(data):
                if frame.command == "MESSAGE":
                    messages.append(frame)
                    continue
                if messages:
                    # What came before an answer has to be there when whoever waits for the answer goes on.
                    self._on_messages(messages)
                    messages = []
                self._answered(frame)
            if messages:
                self._on_messages(messages)
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

    async def connect(self, config: Config) -> None:
        """Introduce ourselves.

        Raises:
            BrokerError: the server refuses us.
            BrokerUnavailable: the connection ended.
        """
        milliseconds = round(self._heartbeat * 1000)
        headers = {
            "accept-version": "1.2",
            "host": config.vhost or config.servers[0][0],
            "heart-beat": f"{milliseconds},{milliseconds}",
        }
        if config.username:
            headers["login"] = config.username
        if config.password:
            headers["passcode"] = config.password
        self.write(frames.connect(headers))
        welcome = await self._connected
        if welcome.command == "ERROR":
            why = _why(welcome)
            if any(word in why.lower() for word in ("user name", "password", "credential", "login", "not authorized")):
                raise BrokerError("the server refuses our credentials")
            raise BrokerError(f"the server refuses us: {why}")
        if welcome.headers.get("version") != "1.2":
            raise BrokerError("the server doesn't speak STOMP 1.2")
        sends, _, wants = welcome.headers.get("heart-beat", "0,0").partition(",")
        self._theirs = max(self._heartbeat, _seconds(sends)) if _seconds(sends) else 0.0
        self._ours = max(self._heartbeat, _seconds(wants)) if _seconds(wants) else 0.0
        self._tick()

    def write(self, data: bytes) -> None:
        """Send a frame, with whatever else is sent in this turn."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(data)

    async def ask(self, command: bytes, headers: dict[str, str], timeout: float) -> None:
        """Send a frame and wait for the server's receipt.

        Raises:
            BrokerUnavailable: none came in time.
            BrokerError: the server refuses it.
        """
        if self.lost.done():
            raise BrokerUnavailable(self.lost.result())
        self._asked += 1
        receipt = f"a{self._asked}"
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers[receipt] = answer
        self.write(frames.frame(command, {**headers, "receipt": receipt}))
        try:
            async with asyncio.timeout(timeout):
                await answer
        except TimeoutError:
            raise BrokerUnavailable(f"no answer within {timeout:g} s") from None
        finally:
            self._answers.pop(receipt, None)

    async def close(self, timeout: float) -> None:
        """Send what was written, have the server take it all, and end the connection."""
        if not self.lost.done() and self._transport is not None:
            try:
                await self.ask(b"DISCONNECT", {}, timeout)
            except BrokerError as error:
                log.info("stomp: disconnected without the server's answer: %s", error)
        self.abort("closed")

    def abort(self, why: str) -> None:
        """End the connection at once."""
        self._end(why)
        if self._transport is not None:
            self._transport.abort()

    def _answered(self, frame: Frame) -> None:
        receipt = frame.headers.get("receipt-id", "")
        if not self._connected.done():
            self._connected.set_result(frame)
        elif frame.command == "RECEIPT" or receipt:
            why = "" if frame.command == "RECEIPT" else _why(frame) or "no reason given"
            waiting = self._answers.get(receipt)
            if waiting is None:
                self._on_answer(receipt, why)
            elif not waiting.done():
                if why:
                    waiting.set_exception(BrokerError(why))
                else:
                    waiting.set_result(None)
        elif frame.command == "ERROR":
            # An error is the last frame of a connection, as the specification has it.
            self.abort(f"the server says: {_why(frame)}")

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None and not self._transport.is_closing():
            self._said = asyncio.get_running_loop().time()
            self._transport.write(b"".join(out))

    def _tick(self) -> None:
        """Give a sign of life; give the connection up when the server gives none."""
        loop = asyncio.get_running_loop()
        silent = loop.time() - self._heard
        if self._theirs and silent > 2 * self._theirs:
            self.abort(f"the server was silent for {silent:.0f} s")
            return
        if self._ours and loop.time() - self._said >= self._ours / 2:
            self.write(HEARTBEAT)
        self._timer = loop.call_later(self._heartbeat / 4, self._tick)

    def _end(self, why: str) -> None:
        if self.lost.done():
            return
        self.lost.set_result(why)
        if self._timer is not None:
            self._timer.cancel()
        self.writable.set()
        waits: list[asyncio.Future[Any]] = [self._connected, *self._answers.values()]
        for waiting in waits:
            if not waiting.done():
                waiting.set_exception(BrokerUnavailable(why))
                waiting.exception()  # nobody may wait for it


def _seconds(milliseconds: str) -> float:
    """Return the server's word for how often it beats; 0 for never, and for what is no number."""
    return int(milliseconds) / 1000 if milliseconds.isascii() and milliseconds.isdigit() else 0.0


def _why(frame: Frame) -> str:
    """Return what an ERROR says, in one line."""
    text = frame.headers.get("message", "") or frame.body[:200].decode("utf-8", "replace")
    return (text.splitlines() or [""])[0][:200]


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
