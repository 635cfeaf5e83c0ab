"""Places in a stream: ids of entries, which begin with the time in milliseconds at which the server took them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hiredis import ReplyError

from ...resp.refusal import no_group

if TYPE_CHECKING:
    from ...resp.connection import Connection


def just_before(time: float) -> str:
    """Return the id that precedes all entries from a UNIX time on."""
    milliseconds = max(0, round(time * 1000))
    return f"{milliseconds - 1}-{2**64 - 1}" if milliseconds else "0-0"


def earlier(one: bytes, other: bytes) -> bytes:
    """Return the smaller of two ids."""
    return min(one, other, key=_numbers)


def _numbers(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence or 0)


async def last_id(connection: Connection, topic: str) -> bytes:
    """Return the id of the newest entry that a stream ever had; `0-0` where there is no stream."""
    try:
        told = await connection.request("XINFO", "STREAM", topic)
    except ReplyError as error:
        if no_group(error):
            return b"0-0"
        raise
    found: bytes = _pairs(told)[b"last-generated-id"]
    return found


async def make_group(connection: Connection, topic: str, group: str, start: bytes | str) -> bytes:
    """Make a group exist, and its stream; return the place up to which it has taken entries.

    Args:
        connection: to the server.
        topic: the stream.
        group: the group; one that exists stays where it is.
        start: where a new one begins: after this id, `$` for the newest entry's.
    """
    try:
        await connection.request("XGROUP", "CREATE", topic, group, start, "MKSTREAM")
    except ReplyError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise
    for told in await connection.request("XINFO", "GROUPS", topic):
        of = _pairs(told)
        if of[b"name"] == group.encode():
            found: bytes = of[b"last-delivered-id"]
            return found
    return b"0-0"  # deleted in between


def _pairs(flat: list[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=False))
