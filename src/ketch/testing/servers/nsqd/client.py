"""Client: one connection and its commands (nsq.io/clients/tcp_protocol_spec.html)."""

from __future__ import annotations

import asyncio
import json
import re
import struct
from typing import TYPE_CHECKING, Any

from .channel import Stored

if TYPE_CHECKING:
    from .channel import Channel
    from .state import State

_NAME = re.compile(r"[.a-zA-Z0-9_-]{1,64}(#ephemeral)?")
_MAX_MESSAGE = 1024 * 1024
_MAX_BODY = 5 * 1024 * 1024
_LONGEST_REQUEUE = 3600.0
_MOST_READY = 2500
_HEAD = struct.Struct(">qH16s")

RESPONSE, ERROR, MESSAGE = 0, 1, 2
_WITH_BODY = {"IDENTIFY", "AUTH", "PUB", "DPUB", "MPUB"}


class Client:
    """One connection. What is wrong is answered with an error; most errors end the connection, as nsqd has it."""

    def __init__(self, state: State, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.in_flight = 0
        self.msg_timeout = 60.0
        self._state = state
        self._reader = reader
        self._writer = writer
        self._ready = 0
        self._closing = False
        self._channel: Channel | None = None
        self._heartbeat = 30.0

    @property
    def is_ready(self) -> bool:
        """Whether it takes one more message."""
        return not self._closing and self.in_flight < self._ready

    def send(self, message: Stored) -> None:
        """Send a message."""
        self._frame(MESSAGE, _HEAD.pack(message.timestamp, message.attempts, message.id) + message.body)

    def _frame(self, kind: int, data: bytes) -> None:
        self._writer.write(struct.pack(">Ii", len(data) + 4, kind) + data)

    async def serve(self) -> None:
        """Carry out commands until the connection ends."""
        beating = asyncio.create_task(self._beat())
        try:
            if await self._reader.readexactly(4) != b"  V2":
                return
            while await self._command():
                await self._writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            pass  # the peer went away, or talks something else
        finally:
            beating.cancel()
            self._closing = True
            if self._channel is not None:
                self._channel.leave(self)
            self._writer.close()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat)
            self._frame(RESPONSE, b"_heartbeat_")

    async def _command(self) -> bool:
        """Carry out one command; False at the end."""
        line = (await self._reader.readuntil(b"\n")).decode().rstrip("\r\n")
        name, *words = line.split(" ")
        body = b""
        if name in _WITH_BODY:
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            if not 0 < size <= _MAX_BODY:
                return self._fatal(f"E_BAD_BODY {name} invalid body size {size}")
            body = await self._reader.readexactly(size)
        act = getattr(self, f"_{name.lower()}", None)
        if act is None:
            return self._fatal(f"E_INVALID invalid command {name}")
        carried_out: bool = act(words, body)
        return carried_out

    def _fatal(self, error: str) -> bool:
        self._frame(ERROR, error.encode())
        return False

    def _ok(self) -> bool:
        self._frame(RESPONSE, b"OK")
        return True

    def _identify(self, _: list[str], body: bytes) -> bool:
        wishes: dict[str, Any] = json.loads(body)
        self._heartbeat = wishes.get("heartbeat_interval", 30_000) / 1000
        self.msg_timeout = wishes.get("msg_timeout", 60_000) / 1000
        if not 1 <= self._heartbeat <= 60 or not 0 < self.msg_timeout <= 900:
            return self._fatal("E_BAD_BODY IDENTIFY heartbeat interval or msg timeout is invalid")
        if not wishes.get("feature_negotiation"):
            return self._ok()
        features = {"max_rdy_count": _MOST_READY, "version": "1.3.0", "tls_v1": False, "auth_required": False}
        self._frame(RESPONSE, json.dumps(features).encode())
        return True

    def _sub(self, words: list[str], _: bytes) -> bool:
        if self._channel is not None or len(words) != 2:
            return self._fatal("E_INVALID cannot SUB in current state")
        for kind, name in zip(("TOPIC", "CHANNEL"), words, strict=True):
            if _NAME.fullmatch(name) is None:
                return self._fatal(f'E_BAD_{kind} SUB name "{name}" is not valid')
        self._channel = self._state.topic(words[0]).channel(words[1])
        self._channel.clients.append(self)
        return self._ok()

    def _rdy(self, words: list[str], _: bytes) -> bool:
        count = int(words[0]) if words else 1
        if not 0 <= count <= _MOST_READY or self._channel is None:
            return self._fatal(f"E_INVALID RDY count {count} out of range 0-{_MOST_READY}")
        self._ready = count
        self._channel.deal()
        return True

    def _fin(self, words: list[str], _: bytes) -> bool:
        return self._settled("FIN", words, lambda channel, id_: channel.finish(id_, self))

    def _touch(self, words: list[str], _: bytes) -> bool:
        return self._settled("TOUCH", words, lambda channel, id_: channel.touch(id_, self))

    def _req(self, words: list[str], _: bytes) -> bool:
        seconds = min(int(words[1]) / 1000, _LONGEST_REQUEUE)
        return self._settled("REQ", words, lambda channel, id_: channel.requeue(id_, self, seconds))

    def _settled(self, name: str, words: list[str], act: Any) -> bool:
        if self._channel is None:
            return self._fatal(f"E_INVALID cannot {name} in current state")
        if not act(self._channel, words[0].encode()):
            self._frame(ERROR, f"E_{name}_FAILED {name} {words[0]} failed ID not in flight".encode())
        return True

    def _cls(self, *_: object) -> bool:
        self._closing = True
        self._frame(RESPONSE, b"CLOSE_WAIT")
        return True

    def _nop(self, *_: object) -> bool:
        return True

    def _pub(self, words: list[str], body: bytes, delay: float = 0.0) -> bool:
        if _NAME.fullmatch(words[0]) is None:
            return self._fatal(f'E_BAD_TOPIC PUB topic name "{words[0]}" is not valid')
        if len(body) > _MAX_MESSAGE:
            return self._fatal(f"E_BAD_MESSAGE PUB message too big {len(body)} > {_MAX_MESSAGE}")
        self._put(words[0], [body], delay)
        return self._ok()

    def _dpub(self, words: list[str], body: bytes) -> bool:
        delay = int(words[1]) / 1000
        if not 0 <= delay <= _LONGEST_REQUEUE:
            return self._fatal(f"E_INVALID DPUB timeout {words[1]} out of range")
        return self._pub(words, body, delay)

    def _mpub(self, words: list[str], body: bytes) -> bool:
        if _NAME.fullmatch(words[0]) is None:
            return self._fatal(f'E_BAD_TOPIC MPUB topic name "{words[0]}" is not valid')
        bodies: list[bytes] = []
        at = 4
        for _ in range(int.from_bytes(body[:4], "big")):
            size = int.from_bytes(body[at : at + 4], "big")
            if not 0 < size <= _MAX_MESSAGE:
                return self._fatal(f"E_BAD_MESSAGE MPUB invalid message(s) body size {size}")
            bodies.append(body[at + 4 : at + 4 + size])
            at += 4 + size
        self._put(words[0], bodies, 0.0)
        return self._ok()

    def _put(self, topic: str, bodies: list[bytes], delay: float) -> None:
        for body in bodies:
            self._state.topic(topic).put(Stored(body), delay)
