r"""STOMP 1.2 frames as bytes and back (stomp.github.io/stomp-specification-1.2.html); no IO.

A frame is a command, headers and a body that ends with a NUL. Names and values are escaped (`\c` for a colon, `\n`,
`\r`, `\\`), except in CONNECT and CONNECTED. Nothing is trusted: what is larger than was agreed on ends the connection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ...errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Mapping

HEARTBEAT: Final = b"\n"

#: Bytes of a frame's command and headers, and how many headers.
MAX_HEAD: Final = 1024 * 1024
MAX_HEADERS: Final = 1024

#: Frames that a server sends.
_COMMANDS = frozenset(("CONNECTED", "MESSAGE", "RECEIPT", "ERROR"))

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", ":": "\\c"}
_UNESCAPES = {escaped[1]: plain for plain, escaped in _ESCAPES.items()}
_SPECIAL = re.compile(r"[\\\n\r:]")
_ESCAPED = re.compile(r"\\(.?)", re.DOTALL)
_BLANK = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"\ncontent-length:([^\r\n]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame as it came; of equal header names the first counts."""

    command: str
    headers: dict[str, str]
    body: bytes = b""


def escape(text: str) -> str:
    """Return a header's name or value as it is written."""
    return _SPECIAL.sub(lambda found: _ESCAPES[found[0]], text) if _SPECIAL.search(text) else text


def unescape(text: str) -> str:
    """Return a header's name or value as it was meant.

    Raises:
        BrokerError: it holds an escape that there isn't.
    """
    return _ESCAPED.sub(_unescape, text) if "\\" in text else text


def _unescape(found: re.Match[str]) -> str:
    plain = _UNESCAPES.get(found[1])
    if plain is None:
        raise BrokerError(f"stomp: the server sent an escape that STOMP doesn't have: {found[0]!r}")
    return plain


def head(headers: Mapping[str, str]) -> bytes:
    """Return headers as they are written.

    Raises:
        BrokerError: one isn't Unicode, or holds a NUL.
    """
    text = "".join([f"{escape(name)}:{escape(value)}\n" for name, value in headers.items()])
    if "\0" in text:
        raise BrokerError("stomp: a header holds a NUL, which ends a frame")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BrokerError(f"stomp: a header can't be written as UTF-8: {error.reason}") from None


def frame(command: bytes, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Return a frame."""
    return b"".join((command, b"\n", head(headers), b"\n", body, b"\0"))


def connect(headers: Mapping[str, str]) -> bytes:
    """Return a CONNECT, whose headers aren't escaped.

    Raises:
        BrokerError: one holds what would end it.
    """
    if any(set("\n\r\0") & set(text) for text in headers.values()):
        raise BrokerError("stomp: user name and password can't hold line ends")
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    return b"".join((b"CONNECT\n", lines.encode(), b"\n\0"))


class Decoder:
    """Turns the bytes of a connection into frames."""

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 1

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes, cut anywhere, and return the frames that are complete; heart-beats are none.

        Raises:
            BrokerError: that is not what a server may send.
        """
        self._have += len(data)
        self._chunks.append(data)
        if self._have < self._need:
            return []
        if len(self._chunks) > 1:
            data = b"".join(self._chunks)
        frames: list[Frame] = []
        at = self._read(data, frames)
        rest = data[at:]
        self._chunks = [rest] if rest else []
        self._have = len(rest)
        return frames

    def _read(self, data: bytes, frames: list[Frame]) -> int:
        at, end = 0, len(data)
        while True:
            while at < end and data[at] in b"\r\n":
                at += 1
            self._need = 1
            if at == end:
                return at
            blank = _BLANK.search(data, at, at + MAX_HEAD)
            if blank is None:
                if end - at >= MAX_HEAD:
                    raise BrokerError(f"stomp: the server sent more than {MAX_HEAD} bytes of headers")
                return at
            begin = blank.end()
            after = self._end(data, at, begin)
            if after < 0:
                self._need = -after - at
                return at
            frames.append(_parse(data[at : blank.start()], data[begin:after]))
            at = after + 1

    def _end(self, data: bytes, at: int, begin: int) -> int:
        """Return where the NUL after a body is; negative, how much must be there, when it hasn't come yet."""
        found = _LENGTH.search(data, at, begin)
        if found is not None:
            if not found[1].isdigit() or len(found[1]) > 10 or int(found[1]) > self._max_body:  # noqa: PLR2004 - digits
                raise BrokerError(f"stomp: the server sent a body of {found[1][:20]!r} bytes, over {self._max_body}")
            after = begin + int(found[1])
            if after >= len(data):
                return -(after + 1)
            if data[after]:
                raise BrokerError("stomp: the server sent a body that doesn't end where it says")
            return after
        after = data.find(b"\0", begin, begin + self._max_body + 1)
        if after < 0 and len(data) - begin > self._max_body:
            raise BrokerError(f"stomp: the server sent a body of more than {self._max_body} bytes")
        return after if after >= 0 else -(len(data) + 1)


def _parse(head: bytes, body: bytes) -> Frame:
    try:
        command, *lines = head.decode().split("\n")
    except UnicodeDecodeError as error:
        raise BrokerError("stomp: the server sent headers that are no UTF-8") from error
    command = command.rstrip("\r")
    if command not in _COMMANDS:
        raise BrokerError(f"stomp: that is no STOMP server: it sent {command[:40]!r}")
    if len(lines) > MAX_HEADERS:
        raise BrokerError(f"stomp: the server sent more than {MAX_HEADERS} headers")
    headers: dict[str, str] = {}
    plain = command == "CONNECTED" or b"\\" not in head
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BrokerError("stomp: the server sent a header without a colon")
        value = value.removesuffix("\r")
        if plain:
            headers.setdefault(name, value)
        else:
            headers.setdefault(unescape(name), unescape(value))
    return Frame(command, headers, body)
