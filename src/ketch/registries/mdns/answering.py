"""Answering: what is told to those who ask."""

from __future__ import annotations

import asyncio
from random import uniform
from typing import TYPE_CHECKING, Final

from .packet import PTR, Packet, encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...registry import Instance
    from .ether import Ether
    from .forms import Form
    from .packet import Record

#: Packets that are sent in one go: sockets' buffers are small.
BURST: Final = 20
#: Questions that are being answered; more of them are passed over, and asked again by who needs to know.
_GIVING: Final = 256
#: An answer that others may give as well waits for so long (RFC 6762 section 6), in seconds.
_JITTER: Final = (0.02, 0.12)


class Answering:
    """Answers questions about the instances that are registered here.

    Args:
        form: how they look on the wire.
        ether: where answers go.
        port: the group's; who asks from another one gets a plain DNS answer (RFC 6762 section 6.7).
        ttl: of the records, in seconds.
    """

    def __init__(self, form: Form, ether: Ether, port: int, ttl: float) -> None:
        self._form = form
        self._ether = ether
        self._port = port
        self._ttl = ttl
        self._waiting: set[tuple[Record, ...]] = set()
        self._giving = 0

    def find(self, packet: Packet, held: Iterable[Instance]) -> list[tuple[Record, ...]]:
        """Return the records of those that are asked for and that the asker doesn't know (its section 7.1)."""
        if not packet.questions or self._giving >= _GIVING:
            return []
        known = {one.data for one in packet.records if one.kind == PTR and one.ttl >= self._ttl / 2}
        found = []
        for instance in held:
            if self._form.label(instance) in known:
                continue
            told = self._form.tell(instance, max(1, round(self._ttl)))
            answers = (self._form.answer(question, told) for question in packet.questions)
            found += [answer for answer in dict.fromkeys(answers) if answer]
        return found

    async def give(self, answers: list[tuple[Record, ...]], packet: Packet, source: tuple[str, int]) -> None:
        """Send answers: to everybody after a moment, or to the asker alone if it asks so."""
        self._giving += 1
        try:
            if source[1] != self._port or any(question.unicast for question in packet.questions):
                await self._give_one(answers, packet, source)
            else:
                await self._give_all([told for told in answers if told not in self._waiting])
        finally:
            self._giving -= 1

    async def _give_one(self, answers: list[tuple[Record, ...]], packet: Packet, source: tuple[str, int]) -> None:
        for number, told in enumerate(answers, 1):
            self._ether.answer(encode(Packet(packet.questions, told, response=True, id=packet.id)), source)
            await _pause(number)

    async def _give_all(self, answers: list[tuple[Record, ...]]) -> None:
        self._waiting.update(answers)  # who asks meanwhile hears them as well
        try:
            await asyncio.sleep(uniform(*_JITTER))  # noqa: S311 - spreading needs no secret
            for number, told in enumerate(answers, 1):
                self._waiting.discard(told)
                self._ether.send(encode(Packet((), told, response=True)))
                await _pause(number)
        finally:
            self._waiting.difference_update(answers)


async def _pause(sent: int) -> None:
    if sent % BURST == 0:
        await asyncio.sleep(0.005)
