"""Following: one watch of a bucket, by an ordered consumer of its stream (ADR-17).

The server sends the latest record of each key that matches, then each change. Consumer sequence numbers have no gaps,
and in silence there are heartbeats; where either is missed the watch ends with an error, and `Mirror` begins it again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from ...errors import RegistryError
from ..complaints import Complaints
from ..record import decode
from .keys import pattern

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ...nats.wire import RawHeaders, Received
    from ...registry import Instance
    from .bucket import Bucket
    from .link import Link

#: Records of one watch; more are skipped.
_MOST: Final = 200_000

#: Overdue records that are asked for at a time.
_AT_A_TIME: Final = 64

#: Heartbeats that may be missing.
_MISSED: Final = 2.5


class Following:
    """Watches a bucket.

    Args:
        link: to the server.
        bucket: what is watched.
        ttl: seconds that records live; those that weren't renewed for longer are asked for.
    """

    def __init__(self, link: Link, bucket: Bucket, ttl: float) -> None:
        self._link = link
        self._bucket = bucket
        self._ttl = ttl
        self._heartbeat = max(0.1, min(5.0, ttl / 5))
        self._complaints = Complaints(link.access.location)

    async def follow(self, name: str | None) -> AsyncGenerator[tuple[Instance, ...], None]:
        """Yield what answers to `name`, as `Mirror` wants it.

        Raises:
            RegistryError: the server is lost, or the watch has gaps.
        """
        deliver = self._link.inbox()
        ear = await self._link.hear(deliver)
        try:
            view = _View(name, self._complaints)
            awaited = await self._bucket.consume(pattern(name), deliver, self._heartbeat)
            if not awaited:
                yield ()
            known = not awaited
            while True:
                batch = await ear.receive(_MISSED * self._heartbeat)
                if not batch:
                    raise RegistryError("the server is silent, though it should say that it is there")
                changed = await self._read(view, batch)
                if await self._doubt(view):
                    changed = True
                if changed if known else not view.pending:
                    known = True
                    yield view.snapshot()
        finally:
            await ear.close()

    async def _read(self, view: _View, batch: list[Received]) -> bool:
        changed = False
        now = asyncio.get_running_loop().time()
        for subject, headers, body, reply in batch:
            status = headers.status if headers is not None else ""
            if status:
                await self._read_status(view, headers, reply)
            elif view.read(self._bucket.key(subject), headers, body, reply, now):
                changed = True
        return changed

    async def _read_status(self, view: _View, headers: RawHeaders | None, reply: bytes) -> None:
        if reply:
            await self._link.tell([(reply.decode(), b"", b"")])  # flow control: go on
        last = b"" if headers is None else _header(headers.raw, b"Nats-Last-Consumer: ")
        if last and int(last) != view.sequence:
            raise RegistryError(f"messages were lost: {view.sequence} of {int(last)} came")

    async def _doubt(self, view: _View) -> bool:
        """Ask for records that weren't renewed in time; tell whether some are gone."""
        now = asyncio.get_running_loop().time()
        gone = False
        for key, sequence in view.overdue(now - 1.5 * self._ttl - 1.0):
            latest = await self._bucket.holds(key)
            if latest > view.newest:
                if key in view.awaited:
                    raise RegistryError("the server has records that it didn't send")
                view.awaited.add(key)  # it may be on its way; whoever is read next comes after it
            elif latest == sequence:
                view.touch(key, now)
            elif not latest:
                gone = view.forget(key) or gone
        return gone


class _View:
    """The records that one watch has seen.

    Attributes:
        sequence: of the consumer's latest message.
        newest: of the stream's.
        pending: messages that the server had still to send then.
        awaited: keys of which the server has more than it has sent so far.
    """

    def __init__(self, name: str | None, complaints: Complaints) -> None:
        self.sequence = 0
        self.newest = 0
        self.pending = 1
        self.awaited: set[str] = set()
        self._name = name
        self._complaints = complaints
        self._records: dict[str, tuple[int, bytes, Instance | None]] = {}
        self._seen: dict[str, float] = {}  # in the order of their times

    def read(self, key: str, headers: RawHeaders | None, body: bytes, reply: bytes, now: float) -> bool:
        """Take a message; tell whether it changes anything."""
        consumed, newest, self.pending = _numbers(reply)
        if consumed != self.sequence + 1:
            raise RegistryError(f"messages were lost: {consumed} came after {self.sequence}")
        self.sequence, self.newest = consumed, newest
        if headers is not None and (b"\nKV-Operation: " in headers.raw or b"\nNats-Marker-Reason: " in headers.raw):
            return self.forget(key)
        known = self._records.get(key)
        self.touch(key, now)
        if known is not None and known[1] == body:
            self._records[key] = (newest, body, known[2])
            return False
        if known is None and len(self._records) >= _MOST:
            self._complaints.make("a record", f"there are more than {_MOST}")
            return False
        instance = self._decode(key, body)
        self._records[key] = (newest, body, instance)
        return instance is not None or known is not None

    def _decode(self, key: str, body: bytes) -> Instance | None:
        try:
            instance = decode(body)
        except RegistryError as error:
            self._complaints.make(key, error)
            return None
        if self._name is not None and not instance.answers_to(self._name):
            self._complaints.make(key, f"its record is of {instance.service}")
            return None
        return instance

    def touch(self, key: str, now: float) -> None:
        """Note that a record is there."""
        self.awaited.discard(key)
        self._seen.pop(key, None)
        self._seen[key] = now

    def forget(self, key: str) -> bool:
        """Note that a record isn't there; tell whether that is news."""
        self.awaited.discard(key)
        self._seen.pop(key, None)
        return self._records.pop(key, None) is not None

    def overdue(self, before: float) -> list[tuple[str, int]]:
        """Return keys with their sequence numbers that weren't seen since a time, a few."""
        late: list[tuple[str, int]] = []
        for key, seen in self._seen.items():
            if seen > before or len(late) >= _AT_A_TIME:
                break
            late.append((key, self._records[key][0] if key in self._records else 0))
        return late

    def snapshot(self) -> tuple[Instance, ...]:
        """Return the instances, each once: by its newest record."""
        newest = sorted((record for record in self._records.values() if record[2] is not None), key=_sequence)
        return tuple({instance.id: instance for _, _, instance in newest if instance is not None}.values())


def _sequence(record: tuple[int, bytes, Instance | None]) -> int:
    return record[0]


def _numbers(reply: bytes) -> tuple[int, int, int]:
    """Return a message's number for the consumer, in the stream, and how many wait behind it.

    `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, newer servers with domain
    and account after `ACK` and a token at the end (ADR-15).
    """
    tokens = reply.split(b".")
    shift = 2 if len(tokens) > 9 else 0  # noqa: PLR2004 - as above
    try:
        return int(tokens[6 + shift]), int(tokens[5 + shift]), int(tokens[8 + shift])
    except (IndexError, ValueError):
        raise RegistryError("a message came without its numbers") from None


def _header(raw: bytes, name: bytes) -> bytes:
    _, found, rest = raw.partition(b"\r\n" + name)
    value = rest.partition(b"\r\n")[0].strip() if found else b""
    return value if value.isdigit() else b""
