"""Connection: commands out, replies in, in the same order (RESP 2).

Commands of one turn of the event loop leave in one write, and replies of one read are handed out together: concurrent
callers share round trips without knowing of each other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from hiredis import ProtocolError, Reader, ReplyError, pack_command

from ..errors import BrokerUnavailable
from .refusal import away

if TYPE_CHECKING:
    from collections.abc import Callable

Argument: TypeAlias = "str | bytes | int"

#: Takes messages that answer no command, those of one read together.
Pushed: TypeAlias = "Callable[[list[list[Any]]], None]"

#: Returns a command as it is sent; hiredis declares it for commands of one word only.
pack: Callable[[tuple[Argument, ...]], bytes] = pack_command  # type: ignore[assignment]

_NOTHING: Any = object()

#: What a server may send without completing one reply. One reply may hold several large events.
_MAX_BUFFER = 1024 * 1024 * 1024

#: Kinds of arrays that answer no command.
_PUSHES = (b"message", b"pmessage")


class Connection(asyncio.Protocol):
    """One connection to a server. It ends when the server leaves a command unanswered for too long.

    Args:
        location: the server, for errors.
        patience: seconds in which something must come while a reply is awaited.
        pushed: takes what is published to channels; None on a connection that subscribes to none.
    """

    def __init__(self, location: str, patience: float, pushed: Pushed | None = None) -> None:
        self._location = location
        self._patience = patience
        self._pushed = pushed
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(notEnoughData=_NOTHING)
        self._awaited: deque[asyncio.Future[Any] | None] = deque()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._heard = self._loop.time()
        self._overdue = False
        self._why = ""
        #: Set once it is lost.
        self.lost = asyncio.Event()

    # --- commands

    def request(self, *command: Argument) -> asyncio.Future[Any]:
        """Send a command; the future has its reply.

        It raises `hiredis.ReplyError` for an error of the server's, `BrokerUnavailable` when the connection is lost.
        """
        return self.send(pack(command))

    def send(self, packed: bytes) -> asyncio.Future[Any]:
        """Send a packed command, as `request` does."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.lost.is_set():
            future.set_exception(self._gone())
        else:
            self._put(packed, future)
        return future

    def _put(self, packed: bytes, future: asyncio.Future[Any] | None) -> None:
        if not self._awaited:
            self._heard = self._loop.time()
        self._awaited.append(future)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)

    def _flush(self) -> None:
        if self._transport is not None and not self.lost.is_set():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    # --- reading

    def pause(self) -> None:
        """Read no more for now."""
        if self._transport is not None and not self.lost.is_set():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self.lost.is_set():
            self._heard = self._loop.time()
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Hand replies to those who wait for them."""
        reader, awaited = self._reader, self._awaited
        self._heard = self._loop.time()
        self._overdue = False
        pushes: list[list[Any]] = []
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _NOTHING:
                if self._pushed is not None and type(reply) is list and reply and reply[0] in _PUSHES:
                    pushes.append(reply)
                    continue
                if pushes:  # what came before a reply is handed over before it
                    self._push(pushes)
                    pushes = []
                self._answer(awaited.popleft(), reply)
        except (ProtocolError, IndexError) as error:
            self.abort(f"it doesn't speak the Redis protocol: {error}")
        if pushes:
            self._push(pushes)
        if reader.len() > _MAX_BUFFER:
            self.abort("a reply is too large")

    def _push(self, pushes: list[list[Any]]) -> None:
        if self._pushed is not None:
            self._pushed(pushes)

    def _answer(self, future: asyncio.Future[Any] | None, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            if away(reply):
                self.abort(str(reply))
            if future is not None and not future.done():
                future.set_exception(reply)
        elif future is not None and not future.done():
            future.set_result(reply)

    # --- its life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to watch it."""
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is both readable and writable
        self._watch = self._loop.call_later(self._patience / 4, self._look)

    def _look(self) -> None:
        silence = self._loop.time() - self._heard
        self._watch = self._loop.call_later(self._patience / 4, self._look)
        if self._awaited and silence > self._patience:
            # Told twice: a loop that was blocked looks at its clock before it reads what has come.
            if self._overdue:
                self.abort(f"no answer within {self._patience:g} s")
            self._overdue = True
        elif not self._awaited and silence > self._patience / 2:
            self._put(pack(("PING",)), None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        self._why = self._why or (str(exc) if exc else "the server closed the connection")
        self._end()

    def abort(self, why: str) -> None:
        """End it at once."""
        if not self.lost.is_set():
            self._why = why
            if self._transport is not None:
                self._transport.abort()
            self._end()

    def _end(self) -> None:
        self.lost.set()
        if self._watch is not None:
            self._watch.cancel()
        awaited, self._awaited = self._awaited, deque()
        for future in awaited:
            if future is not None and not future.done():
                future.set_exception(self._gone())

    def _gone(self) -> BrokerUnavailable:
        return BrokerUnavailable(f"{self._location}: the connection is lost: {self._why}")

    @property
    def why(self) -> str:
        """Why it was lost; "" while it wasn't."""
        return self._why
