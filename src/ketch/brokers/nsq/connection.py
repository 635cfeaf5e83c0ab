"""Connection: one to an nsqd, with its handshake, its heartbeats, and answers in the order of the commands."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from ...errors import BrokerError, BrokerUnavailable
from . import protocol
from .protocol import ERROR, HEARTBEAT, MESSAGE, Frames, Received, read_message

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from ...broker import Site
    from .config import Config

log = logging.getLogger("ketch.broker")

#: Milliseconds that nsqd collects messages for at most; the shortest that it allows.
_BUFFER = 25

#: Heartbeats without which the connection counts as dead.
_MISSED = 2.5

#: Errors that answer no command that waits for one, and end nothing.
_LATE = (b"E_FIN_FAILED", b"E_REQ_FAILED", b"E_TOUCH_FAILED")

#: Most bytes of a server's error that are shown.
_SHOWN = 200


class Connection(asyncio.Protocol):
    """One connection; `lost` is set when it has ended."""

    def __init__(self, take: Callable[[list[Received]], None], heartbeat: float) -> None:
        """Describe it.

        Args:
            take: is given messages as they come.
            heartbeat: seconds between signs of life.
        """
        self.lost = asyncio.Event()
        self.why = "the connection was closed"
        self.most_ready = 2500
        self._take = take
        self._patience = heartbeat * _MISSED
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._answers: deque[Callable[[bytes | BrokerError], None]] = deque()
        self._transport: Any = None
        self._watch: asyncio.TimerHandle | None = None
        self._heard = 0.0

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to watch."""
        self._transport = transport
        self._heard = self._loop.time()
        self._watch = self._loop.call_later(self._patience, self._look)

    def data_received(self, data: bytes) -> None:
        """Sort frames."""
        self._heard = self._loop.time()
        try:
            messages: list[Received] = []
            for kind, content in self._frames.feed(data):
                if kind == MESSAGE:
                    messages.append(read_message(content))
                    continue
                if messages:  # what came before an answer has to be there when whoever waits for it goes on
                    self._take(messages)
                    messages = []
                if content == HEARTBEAT:
                    self.write(protocol.NOP)
                else:
                    self._answer(kind, content)
            if messages:
                self._take(messages)
        except BrokerError as error:
            self.abort(str(error))

    def _answer(self, kind: int, content: bytes) -> None:
        if kind == ERROR and content.startswith(_LATE):
            log.info("nsq: too late to settle: %s", _shown(content))
        elif self._answers:
            self._answers.popleft()(BrokerError(_shown(content)) if kind == ERROR else content)
        else:
            self.abort(_shown(content))

    def connection_lost(self, error: Exception | None) -> None:
        """Fail whoever waits."""
        if error is not None and self.why == "the connection was closed":
            self.why = str(error) or type(error).__name__
        if self._watch is not None:
            self._watch.cancel()
        self.lost.set()
        failure = BrokerUnavailable(f"nsq: {self.why}")
        while self._answers:
            self._answers.popleft()(failure)

    def _look(self) -> None:
        silent = self._loop.time() - self._heard
        if silent >= self._patience:
            self.abort(f"nothing came for {silent:.1f} s, not even a heartbeat")
        else:
            self._watch = self._loop.call_later(self._patience - silent, self._look)

    # --- what we call

    def write(self, data: bytes) -> None:
        """Send commands."""
        self._transport.write(data)

    def ask(self, command: bytes, answered: Callable[[bytes | BrokerError], None]) -> None:
        """Send a command that is answered; an error that ended the connection is an answer too."""
        if self.lost.is_set():
            answered(BrokerUnavailable(f"nsq: {self.why}"))
            return
        self._answers.append(answered)
        self._transport.write(command)

    async def request(self, command: bytes) -> bytes:
        """Send a command and return its answer.

        Raises:
            BrokerError: nsqd's own error, or `BrokerUnavailable` where the connection ended.
        """
        answer: asyncio.Future[bytes] = self._loop.create_future()

        def answered(content: bytes | BrokerError) -> None:
            if answer.done():
                return
            if isinstance(content, BrokerError):
                answer.set_exception(content)
            else:
                answer.set_result(content)

        self.ask(command, answered)
        return await answer

    async def greet(self, config: Config, site: Site, host: str) -> None:
        """Say who we are and what we want, go over to TLS, log in.

        Raises:
            BrokerError: it is refused.
        """
        hello = {
            "client_id": site.service,
            "hostname": site.instance_id,
            "user_agent": "ketch",
            "feature_negotiation": True,
            "heartbeat_interval": round(config.heartbeat * 1000),
            "msg_timeout": round(config.msg_timeout * 1000),
            "output_buffer_timeout": _BUFFER,
            "tls_v1": config.tls is not None,
        }
        self.write(protocol.MAGIC)
        features = _features(await self.request(protocol.with_body("IDENTIFY", json.dumps(hello).encode())))
        self.most_ready = int(features.get("max_rdy_count", self.most_ready))
        if config.tls is not None:
            await self._secure(config.tls, host, features)
        if features.get("auth_required"):
            if not config.secret:
                raise BrokerError("nsqd asks for a secret: nsq://secret@host:port")
            await self.request(protocol.with_body("AUTH", config.secret.encode()))

    async def _secure(self, tls: ssl.SSLContext, host: str, features: dict[str, Any]) -> None:
        if not features.get("tls_v1"):
            raise BrokerError("nsqd has no TLS: start it with --tls-cert and --tls-key")
        ready: asyncio.Future[bytes] = self._loop.create_future()
        self._answers.append(lambda content: None if ready.done() else ready.set_result(b""))  # noqa: ARG005 - OK it is
        self._transport = await self._loop.start_tls(self._transport, self, tls, server_hostname=host)
        await ready

    def abort(self, why: str) -> None:
        """End it at once."""
        self.why = why
        if self._transport is not None:
            self._transport.abort()

    async def close(self, patience: float) -> None:
        """Send what was written, then end it."""
        if self._transport is None:
            return
        self._transport.close()
        try:
            async with asyncio.timeout(patience):
                await self.lost.wait()
        except TimeoutError:
            self.abort("it didn't take what was written")


def _features(answer: bytes) -> dict[str, Any]:
    try:
        features = json.loads(answer)
    except ValueError:
        return {}  # "OK": an nsqd of before 0.2.20
    return features if isinstance(features, dict) else {}


def _shown(content: bytes) -> str:
    return content[:_SHOWN].decode("utf-8", "replace")


async def connect(
    config: Config, site: Site, address: tuple[str, int], take: Callable[[list[Received]], None]
) -> Connection:
    """Return a connection that is ready for commands.

    Raises:
        BrokerUnavailable: nobody answers within `connect_timeout`.
        BrokerError: nsqd refuses us.
    """
    where = f"nsq://{address[0]}:{address[1]}"
    connection = Connection(take, config.heartbeat)
    try:
        async with asyncio.timeout(config.connect_timeout):
            await asyncio.get_running_loop().create_connection(lambda: connection, *address)
            await connection.greet(config, site, address[0])
    except (OSError, TimeoutError) as error:  # TLS's errors are OSErrors
        connection.abort("it didn't begin well")
        why = str(error) or "no answer"
        raise BrokerUnavailable(f"{where}: {why}; is nsqd running?") from error
    except BrokerUnavailable as error:
        raise BrokerUnavailable(f"{where}: {error}") from error
    except BrokerError as error:
        connection.abort("it was refused")
        raise BrokerError(f"{where}: {error}") from error
    except asyncio.CancelledError:
        connection.abort("it isn't wanted any more")
        raise
    return connection
