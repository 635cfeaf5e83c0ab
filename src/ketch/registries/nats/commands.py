"""Commands of NATS's protocol that publish (docs.nats.io, "Client Protocol")."""

from __future__ import annotations

from typing import TypeAlias

from ...errors import RegistryError

#: Subject, lines of headers (each with its end) or b"", body.
Question: TypeAlias = tuple[str, bytes, bytes]

#: Longest subjects of a line, with room for what else is in it: the server ends the connection over 4096 bytes.
_MAX_SUBJECTS = 3900

_HEADER_LINE = b"NATS/1.0\r\n"


def command(limit: int, subject: str, headers: bytes, body: bytes, reply: str) -> bytes:
    """Return the protocol's command that publishes.

    Args:
        limit: the server's; it cuts the connection of whoever exceeds it.
        subject: without white space and wildcards.
        headers: lines, each with its end; b"" for none.
        body: anything.
        reply: where answers go, "" for nowhere.

    Raises:
        RegistryError: it is over the limit.
    """
    head = _HEADER_LINE + headers + b"\r\n" if headers else b""
    size = len(head) + len(body)
    if size > limit:
        raise RegistryError(f"a record of {size} bytes is over the NATS server's limit of {limit}")
    to = f"{subject} {reply}" if reply else subject
    check_length(to)
    if head:
        return b"HPUB %b %d %d\r\n%b%b\r\n" % (to.encode(), len(head), size, head, body)
    return b"PUB %b %d\r\n%b\r\n" % (to.encode(), size, body)


def check_length(subjects: str) -> None:
    """Check that subjects fit into a line of the protocol.

    Raises:
        RegistryError: they don't.
    """
    if len(subjects.encode()) > _MAX_SUBJECTS:
        raise RegistryError(f"{subjects[:60]}… is too long for NATS: shorten the names of services, contracts and ids")
