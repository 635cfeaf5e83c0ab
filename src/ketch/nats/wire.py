"""The hot path between nats-py and us: NATS's text protocol for messages, both ways (docs.nats.io, "Client Protocol").

nats-py connects, authenticates, keeps alive and reconnects. But it parses the headers of each message with a mail
parser and validates those it writes name by name, which costs several times what everything else does. So our messages
are read and written here; whatever else comes over the connection goes to the driver's own parser. See decision 3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from nats.errors import ConnectionClosedError, ProtocolError
from nats.protocol.parser import Parser

from ..message import CONTENT_TYPE, SPEC_VERSION, BySharedHeaders, LazyHeaders, Stamped

if TYPE_CHECKING:
    from ..message import Message

#: A message as it came: subject, headers (None without any), payload, where to reply to (b"" for nowhere).
Received: TypeAlias = tuple[str, "RawHeaders | None", bytes, bytes]

#: Takes the messages of one subscription.
Sink: TypeAlias = Callable[[list[Received]], Awaitable[None]]

_HEADER_LINE = b"NATS/1.0\r\n"
_END = b"\r\n"

#: Longest line of the protocol that is no payload (the server's own limit, `max_control_line`, is 4096 by default).
_MAX_LINE = 64 * 1024

#: Largest message taken; the server's `max_payload` is 1 MiB by default and 64 MiB at most.
_MAX_MESSAGE = 64 * 1024 * 1024 + _MAX_LINE

#: Publishers whose shared headers are kept; one that makes types up must not fill the memory.
_SHARED = 1024

#: Headers of an event without metadata of its publisher's.
_PLAIN = 6


class RawHeaders(LazyHeaders):
    """Headers as they came, parsed when they are asked for. Names are lower case; of two equal names the first counts.

    Publishers write what their events share first, up to `ce-id`. That block is the same for event after event, so its
    parsed form is kept and answers most questions.
    """

    __slots__ = ("_raw",)

    _known: dict[bytes, dict[str, str]] = {}  # noqa: RUF012 - one cache for all

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._all = None

    def get(self, name: str, default: Any = None) -> Any:
        """Return a header's value."""
        if self._all is None:
            if name.startswith("ketch-") and name.encode() not in self._raw:
                return default  # it is asked of each event, and nearly none has it
            shared, found, _ = self._raw.partition(b"\r\nce-id: ")
            if found:
                known = self._known.get(shared)
                if known is None:
                    known = parse_headers(shared)
                    if len(self._known) < _SHARED:
                        self._known[shared] = known
                if name in known:
                    return known[name]
        return self._made().get(name, default)

    def _parse(self) -> dict[str, str]:
        return parse_headers(self._raw)

    @property
    def raw(self) -> bytes:
        """The headers as they came."""
        return self._raw

    @property
    def status(self) -> str:
        """What follows the version in the first line: `404 No Messages`; "" for an ordinary message."""
        return self._raw[len(b"NATS/1.0 ") : self._raw.find(b"\r\n")].decode("utf-8", "replace")


def parse_headers(raw: bytes) -> dict[str, str]:
    """Parse `NATS/1.0`, lines of `Name: value`, the empty line. What is no UTF-8 is replaced, other lines skipped.

    The server's own, `Nats-…`, are left out.
    """
    headers: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon and not name.startswith("Nats-"):
            headers.setdefault(name.strip().lower(), value.strip())
    return headers


class Writer:
    """Writes plain events as `HPUB` commands; what their publisher's events share is formatted once."""

    def __init__(self) -> None:
        self._shared: dict[tuple[str, str, str], bytes] = {}
        self._stamped = BySharedHeaders(self._block)

    def command(self, message: Message) -> bytes | None:
        """Return the command, or None for a message that isn't plain, which the driver can write."""
        headers = message.headers
        if type(headers) is Stamped:
            shared = self._stamped[headers.shared]
            if not shared:
                return None
            # Id and time are our own: plain ASCII.
            own = f"ce-id: {headers.id}\r\nce-time: {headers.time}\r\n\r\n".encode()
            body = message.body
            size = len(shared) + len(own)
            return b"".join((f"HPUB {message.topic} {size} {size + len(body)}\r\n".encode(), shared, own, body, _END))
        return self._command(message, headers)

    def confirmed(self, message: Message, reply: str, extra: str = "") -> bytes:
        """Return the command of an event whose taking the server is to confirm to `reply`.

        Args:
            message: the event; the server drops another one of the same `dedup_id` within its window.
            reply: a subject of ours.
            extra: lines of headers, each with its end.
        """
        headers = message.headers
        tail = f"Nats-Msg-Id: {message.dedup_id}\r\n{extra}\r\n"
        block = self._stamped[headers.shared] if type(headers) is Stamped else b""
        if block and type(headers) is Stamped:
            head = block + f"ce-id: {headers.id}\r\nce-time: {headers.time}\r\n{tail}".encode()
        else:
            lines = "".join(f"{name}: {_one_line(value)}\r\n" for name, value in headers.items())
            head = _HEADER_LINE + f"{lines}{tail}".encode()
        body = message.body
        line = f"HPUB {message.topic} {reply} {len(head)} {len(head) + len(body)}\r\n"
        return b"".join((line.encode(), head, body, _END))

    def _block(self, shared: Mapping[str, str]) -> bytes:
        try:
            return self._share((shared["ce-source"], shared["ce-type"], shared[CONTENT_TYPE]))
        except KeyError:
            return b""

    def _command(self, message: Message, headers: Mapping[str, str]) -> bytes | None:
        try:
            key = (headers["ce-source"], headers["ce-type"], headers[CONTENT_TYPE])
            if len(headers) != _PLAIN or headers["ce-specversion"] != SPEC_VERSION:
                return None
            own = f"ce-id: {headers['ce-id']}\r\nce-time: {headers['ce-time']}\r\n\r\n"
        except KeyError:
            return None
        shared = self._shared.get(key)
        if shared is None:
            shared = self._share(key)
        if not shared or len(own) != len(own.encode()) or own.count("\r") != 3:  # noqa: PLR2004 - its own line ends
            return None
        body = message.body
        size = len(shared) + len(own)
        line = f"HPUB {message.topic} {size} {size + len(body)}\r\n"
        return b"".join((line.encode(), shared, own.encode(), body, _END))

    def _share(self, key: tuple[str, str, str]) -> bytes:
        source, type_, content_type = key
        lines = (
            ("ce-specversion", SPEC_VERSION),
            ("ce-source", source),
            ("ce-type", type_),
            (CONTENT_TYPE, content_type),
        )
        plain = all(value.isprintable() and value == value.strip() for _, value in lines)
        shared = _HEADER_LINE + b"".join(f"{name}: {value}\r\n".encode() for name, value in lines) if plain else b""
        if len(self._shared) < _SHARED:
            self._shared[key] = shared
        return shared


def _one_line(value: str) -> str:
    return value.replace("\r", " ").replace("\n", " ")


class Reader(Parser):
    """The driver's parser, but for the messages of subscriptions that have a sink.

    The driver calls `parse` with what it has read; it may be cut anywhere.
    """

    def __init__(self, client: Any, sinks: Mapping[int, Sink]) -> None:
        super().__init__(client)
        self._sinks = sinks

    def reset(self) -> None:
        """Forget what was read: a new connection begins."""
        super().reset()
        self._rest = b""

    async def parse(self, data: bytes = b"") -> None:
        """Take bytes of the server's; hand messages to their sinks in batches."""
        data = self._rest + data if self._rest else data
        at = 0
        batches: dict[int, list[Received]] = {}
        while (end := data.find(b"\r\n", at)) >= 0:
            # "MSG " and "HMSG " begin the only lines that a payload follows.
            if data.startswith((b"MSG ", b"HMSG "), at):
                after = await self._message(data, at, end, batches)
                if after < 0:
                    break
                at = after
            else:
                # What came before a PONG has to be in its mailbox when whoever waits for the PONG goes on.
                await self._hand_over(batches)
                line, at = data[at : end + 2], end + 2
                await super().parse(line)
        await self._hand_over(batches)
        self._rest = data[at:]
        if len(self._rest) > _MAX_MESSAGE or (end < 0 and len(self._rest) > _MAX_LINE):
            raise ProtocolError

    async def _hand_over(self, batches: dict[int, list[Any]]) -> None:
        for sid, batch in batches.items():
            sink = self._sinks.get(sid)
            if sink is not None:
                await sink(batch)
        batches.clear()

    async def _message(self, data: bytes, at: int, end: int, batches: dict[int, list[Any]]) -> int:
        """Read one message whose line ends at `end`; return where it ends, -1 when that hasn't come yet."""
        fields = data[at:end].split()
        with_headers = fields[0] == b"HMSG"
        try:
            sid, total = int(fields[2]), int(fields[-1])
            size = int(fields[-2]) if with_headers else 0
        except (ValueError, IndexError):
            raise ProtocolError from None
        if not 0 <= size <= total <= _MAX_MESSAGE:
            raise ProtocolError
        begin = end + 2
        after = begin + total + 2
        if len(data) < after:
            return -1
        subject = fields[1]
        raw = data[begin : begin + size] if with_headers else None
        body = data[begin + size : begin + total]
        reply = fields[3] if len(fields) == (6 if with_headers else 5) else b""
        if sid in self._sinks:
            headers = None if raw is None else RawHeaders(raw)
            batches.setdefault(sid, []).append((subject.decode("utf-8", "replace"), headers, body, reply))
        else:
            await self.nc._process_msg(sid, subject, reply, body, raw)  # noqa: SLF001 - as the driver's parser does
        return after


async def round_trip(client: Any, timeout: float) -> None:
    """Return when the server has handled all that was sent so far, and we all that it sent before its answer.

    The driver writes a PING past the commands that still wait in its buffer, and then these. So the first one only sees
    to it that they are written; the second comes after them. Its own `flush` cancels what it waits with, when it has
    waited long enough or is cancelled itself; the PONG that comes then ends the driver's reading for good.

    Raises:
        ConnectionClosedError: the driver has given up.
        TimeoutError: there is no answer.
    """
    if client.is_closed:
        raise ConnectionClosedError
    for _ in range(2):
        reading = client._reading_task  # noqa: SLF001 - as its own `flush` does
        if reading is None or reading.done():
            await client._flush_pending()  # noqa: SLF001 - between two connections: what is pending goes with the next
            continue
        pong = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(timeout):
            await client._send_ping(pong)  # noqa: SLF001 - see above
            await asyncio.shield(pong)
